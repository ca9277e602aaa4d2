"""The benchmarks time the training step of the program and compare sides that compute the same."""

import itertools
from pathlib import Path
from typing import Any

import bench_coupling
import bench_gpu
import pytest
import torch
from support import tiny

ARMS: dict[str, Any] = {"cl": "dcl", "ce": "cross_entropy"}


@pytest.mark.parametrize("log_every", [1, 5])
def test_the_timed_step_is_the_training_step_of_the_program(tmp_path: Path, log_every: int) -> None:
    """After one epoch the weights equal those of a run. The batches continue with the next epoch."""
    constant = {**tiny.TINY["optimizer"], "schedule": "constant"}
    changed = {**tiny.TINY, "arms": ARMS, "epochs": 1, "log_every": log_every, "optimizer": constant}
    tiny.train(tmp_path / "run", **changed)
    with bench_coupling.coordinator(**changed) as coupled:
        take = bench_coupling.program_steps(coupled)
        for _ in range(5 // log_every):
            take()
        for arm in coupled.arms:
            saved, found = tiny.tensors(tmp_path / "run", arm.name, 1), arm.network.state_dict()
            assert all(torch.equal(found[name], tensor) for name, tensor in saved.items())
        before = coupled.arms[0].kept_state()
        take()
        assert not torch.equal(before["network/encoder.conv1.weight"], coupled.arms[0].network.encoder.conv1.weight)


def test_the_bare_step_trains_the_same_networks() -> None:
    """The baseline computes forward and backward of every module of every arm."""
    with bench_coupling.coordinator(**tiny.TINY) as coupled:
        bench_coupling.bare_step(coupled.arms, next(bench_coupling.passed(coupled)))
        for arm in coupled.arms:
            assert [name for name, p in arm.network.named_parameters() if p.grad is None] == [], arm.name


def test_the_two_sides_are_timed_alternately() -> None:
    """The load of the machine then affects both equally. The first call is a warm-up and is not counted."""
    calls: list[str] = []
    sides = [lambda: calls.append("a"), lambda: calls.append("b")]
    assert len(bench_coupling.in_turn(*sides)) == 2
    assert calls == list(itertools.islice(itertools.cycle("ab"), 2 * (bench_coupling.REPEATS + 1)))


def test_the_gpu_benchmark_runs_on_a_cpu() -> None:
    """The results of both sides must agree. A ratio above 1 means faster."""
    rows = bench_gpu.gpu_rows("cpu", images=8)
    assert len(rows) == 1 + len(bench_gpu.OURS)
    assert all(each["ours"] > 0 and each["baseline"] > 0 and each["ratio"] > 0 for each in rows)
    assert bench_gpu.row("x", 1.0, 3.0, 3.0, 2, "s", 0, 0)["ratio"] == 3.0
