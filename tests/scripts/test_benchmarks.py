"""The benchmarks measure what they say, print each row at once, and keep to their budget."""

import itertools
import json
import math
import subprocess
import time
from pathlib import Path
from typing import Any

import bench_analysis
import bench_augmentation
import bench_coupling
import bench_distributed
import bench_objectives
import bench_report
import bench_runs
import benchmark
import pytest
import rows
import torch
from support import forked, tiny

ARMS: dict[str, Any] = {"cl": "dcl", "ce": "cross_entropy"}
OPTIONS = rows.Options(seconds=600, tiny=True)
SCRIPTS = (bench_analysis, bench_augmentation, bench_coupling, bench_distributed, bench_objectives, bench_runs)


@pytest.mark.parametrize("log_every", [1, 5])
def test_the_step_that_is_timed_is_the_programs(tmp_path: Path, log_every: int) -> None:
    """After all of an epoch's steps the weights are those that a run saves, and the batches go on behind the epoch."""
    constant = {**tiny.TINY["optimizer"], "schedule": "constant"}
    changed = {**tiny.TINY, "arms": ARMS, "epochs": 1, "log_every": log_every, "optimizer": constant}
    tiny.train(tmp_path / "run", **changed)
    with bench_coupling.coordinator(OPTIONS, **changed) as coupled:
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
    """Forward and backward through every part of every arm: the side that is compared with may leave nothing out."""
    with bench_coupling.coordinator(OPTIONS, **tiny.TINY) as coupled:
        bench_coupling.bare_step(coupled.arms, next(bench_coupling.passed(coupled)))
        for arm in coupled.arms:
            assert [name for name, p in arm.network.named_parameters() if p.grad is None] == [], arm.name


def test_runs_on_decoded_images_can_be_measured(tmp_path: Path) -> None:
    """This row trains in processes of its own, so no other test runs its settings."""
    bench_runs.write_pictures(tmp_path)
    bench_runs.train(["cl"], "cpu", True, str(tmp_path))


def test_sides_are_timed_in_turn() -> None:
    """The load of the machine falls on all alike; the first turn warms up and is not counted."""
    calls: list[str] = []
    sides = [lambda: calls.append("a"), lambda: calls.append("b")]
    assert len(rows.in_turn(*sides, repeats=5)) == 2
    assert calls == list(itertools.islice(itertools.cycle("ab"), 2 * 6))


def test_the_benchmark_of_the_report_makes_its_page(tmp_path: Path) -> None:
    """`make benchmark` starts in a checkout without runs; only a page with charts can be measured."""
    page = bench_report.demo_page(tmp_path, OPTIONS).read_text(encoding="utf-8")
    assert page.count('class="chart"') >= 3


def test_every_benchmark_is_part_of_make_benchmark() -> None:
    """One that is not could fail unnoticed. bench_activations and bench_memory measure single settings, by hand."""
    scripts = {path.stem.removeprefix("bench_") for path in benchmark.HERE.glob("bench_*.py")}
    assert scripts - {"activations", "memory"} == {*benchmark.SHARES}
    assert [sum(shares) for shares in zip(*benchmark.SHARES.values(), strict=True)] == pytest.approx([1, 1])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_row_of_a_benchmark_can_be_tried_out(script: Any) -> None:
    """In the smallest setting every row is measured, or says what is missing; none is out of the budget."""
    found = list(rows.measure(script.cases(OPTIONS), OPTIONS))
    assert len(found) >= 2
    for each in found:
        if each["note"].startswith("not measured"):
            assert each["note"].removeprefix("not measured: ") in ("no GPU", "starts processes")
            continue
        assert each["ours"] > 0
        assert each["ratio"] > 0 or math.isnan(each["baseline"])


def test_a_case_that_takes_too_long_is_a_row_that_says_so() -> None:
    """One slow case must not cost the rows after it."""
    fast = rows.row("fast", 1.0, 3.0)
    cases = [rows.Case("slow", lambda: time.sleep(60) or fast), rows.Case("fast", lambda: fast)]  # type: ignore[func-returns-value]
    began = time.monotonic()
    slow, second = rows.measure(cases, rows.Options(seconds=0.3))
    assert time.monotonic() - began < 30  # of the 60 that the case would take
    assert slow["note"] == "not measured: no figure within 0 s"
    assert (second, second["ratio"]) == (fast, 3.0)
    assert [row["note"] for row in rows.measure(cases[1:], rows.Options(seconds=0))] == [slow["note"]]


def test_no_process_outlives_the_case_that_started_it(tmp_path: Path) -> None:
    """A form that is out of time would go on, and slow down every row after it."""
    late = tmp_path / "late"
    command = ["sh", "-c", f"(sleep 1; touch {late}) & wait"]

    def slow() -> rows.Row:
        with rows.started(command) as process:
            process.communicate()
        return {}

    (found,) = rows.measure([rows.Case("slow", slow)], rows.Options(seconds=0.2))
    assert found["note"].startswith("not measured")
    time.sleep(1.2)
    assert not late.exists()


@pytest.mark.parametrize(("unit", "ratio"), [("s", 4.0), ("views/s", 0.25)])
def test_a_ratio_above_one_means_that_ours_is_better(unit: str, ratio: float) -> None:
    assert rows.row("x", 1.0, 4.0, unit=unit)["ratio"] == ratio


def test_the_first_line_names_the_machine_and_the_files_have_every_row(tmp_path: Path) -> None:
    """A call that is stopped and leaves no file is lost."""
    command = [str(forked.python()), benchmark.__file__, "--tiny", "--only", "augmentation", "--seconds", "600"]
    files = [tmp_path / "rows.json", tmp_path / "rows.md"]
    command += ["--output", str(files[0]), "--markdown", str(files[1])]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    first, _, rest = printed.partition("\n")
    assert "torch 2." in first
    names = [row["name"] for row in json.loads(files[0].read_text())["rows"]]
    assert len(names) == 3
    assert all(name in rest and name in files[1].read_text() for name in names)
    assert "not measured: no GPU" in rest
