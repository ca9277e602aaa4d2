"""Losses read every k steps: the run is equal to one that reads every step, also after a step that is not finite."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from support import ranks, tiny
from support.objectives import small_arms
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from coupled.arms.arm import Arm
from coupled.arms.lockstep import _record, log_every_of
from coupled.arms.step_result import StepResult
from coupled.coordinator import Coordinator
from coupled.parallel.process_group import process_group
from coupled.stream.batches import Batch

WAITS = (  # need a value to go on, or a decomposition's success
    *("aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.masked_select"),
    *("aten._linalg_eigh", "aten.linalg_eigh", "aten.linalg_cholesky.", "aten._linalg_svd", "aten.linalg_inv."),
)
ARMS: dict[str, Any] = {
    "cl": "dcl",
    "byol": {"objective": "byol", "hidden_dim": 16},  # with a target network
    "direct": {"objective": "directpred", "freq": 2},  # with a rule of its own
}
RUN: dict[str, Any] = {
    "dataset": tiny.FEW_IMAGES["dataset"],
    "batch": {"size": 72},  # 4 steps an epoch, 8 in all
    "encoder": {"name": "test_resnet", "stem": "imagenet"},
    "arms": ARMS,
}


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run whose losses are read at every step."""
    run = tmp_path_factory.mktemp("runs") / "one"
    tiny.train(run, **RUN)
    return run


def assert_equal_runs(run: Path, other: Path) -> None:
    assert tiny.snapshot_bytes(run) == tiny.snapshot_bytes(other)
    for file in ("steps.csv", "snapshots/manifest.jsonl"):
        assert (run / file).read_bytes() == (other / file).read_bytes()
    epochs = [pandas.read_csv(each / "epochs.csv") for each in (run, other)]
    pandas.testing.assert_frame_equal(*(t[["epoch", "arm", "loss", "lr"]] for t in epochs), check_exact=True)
    assert (epochs[0]["seconds"] > 0).all()


@contextmanager
def not_finite_once(arm: str, step: int) -> Iterator[list[int]]:
    """Make the gradients of `arm` NaN at its first attempt of `step`; the list has the steps that this rank tries."""
    usual, tried = Arm.gradients, [0]
    met = 0

    def gradients(self: Arm, batch: Batch) -> Tensor:
        nonlocal met
        numbers_4, here = usual(self, batch), 4 * (batch.epoch - 1) + batch.number + 1
        if tried[-1] != here:
            tried.append(here)
        if (self.name, here) == (arm, step):
            met += 1
            if met == 1:
                numbers_4[0] = float("nan")
                for parameter in self.trained:
                    assert parameter.grad is not None
                    parameter.grad.fill_(float("nan"))
        return numbers_4

    Arm.gradients = gradients  # type: ignore[method-assign]
    try:
        yield tried
    finally:
        Arm.gradients = usual  # type: ignore[method-assign]


@pytest.mark.slow
def test_reading_losses_every_k_steps_equals_reading_every_step(one_by_one: Path, tmp_path: Path) -> None:
    """Neither an epoch nor the run need be a multiple of k; a resumed run may use another k."""
    tiny.train(tmp_path / "run", log_every=3, **RUN)
    assert_equal_runs(tmp_path / "run", one_by_one)
    stopped = tiny.train(tmp_path / "parts", log_every=100, max_steps=6, **RUN).outcome.stopped
    assert stopped == "stopped by --max-steps after step 6 of 8"
    assert len(pandas.read_csv(tmp_path / "parts/steps.csv")) == 6
    tiny.train(tmp_path / "parts", resume=True, log_every=2, **RUN)
    assert_equal_runs(tmp_path / "parts", one_by_one)


@pytest.mark.parametrize("arm", ["byol", "direct"])
def test_all_arms_roll_back_and_replay_the_steps_one_by_one(
    one_by_one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arm: str
) -> None:
    """Weights, running averages, momentum and target networks return to the state before the unread steps. The fault
    does not recur, so the run warns and ends equal to one without a fault.
    """
    with not_finite_once(arm, step=6) as tried:
        tiny.train(tmp_path / "run", log_every=3, **RUN)
    warning = f"warning: step 6: arm '{arm}': loss is nan; replaying the step gave finite values."
    assert capsys.readouterr().out.count(warning) == 1
    assert tried == [0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8]
    assert_equal_runs(tmp_path / "run", one_by_one)


def test_every_hardware_fault_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two faults of one arm differ only in the step; one shown warning would look like a single accident."""
    with not_finite_once("cl", step=1), not_finite_once("cl", step=3):
        tiny.train(tmp_path / "run", **{**RUN, "arms": {"cl": "dcl"}}, log_every=2, max_steps=4)
    output = capsys.readouterr().out
    assert [output.count(f"warning: step {step}: arm 'cl': loss is nan; replaying") for step in (1, 3)] == [1, 1]


def test_losses_are_read_once_per_k_steps_and_step_by_step_in_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses of k steps are read when all k are launched, not before; after the replay k is k again."""
    order: list[str] = []

    def noted(name: str, usual: Callable[..., Any]) -> Callable[..., Any]:
        return lambda arm, *rest: (order.append(name), usual(arm, *rest))[1]

    changed = {**RUN, "arms": {"cl": "dcl"}, "log_every": 3}
    with not_finite_once("cl", step=2), process_group("cpu") as group:
        for name in ("gradients", "update", "read"):
            monkeypatch.setattr(Arm, name, noted(name[0], getattr(Arm, name)))
        Coordinator(tiny.tiny_settings(**changed), group, tmp_path / "run").train()
    assert "".join(order) == "gugugurrr" + 3 * "gru" + "gru" + "gugugurrr" + "gru"


def test_a_signal_during_the_wait_for_losses_stops_after_the_running_steps(
    one_by_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU this is most of the time: running steps are finished, no others begin."""
    read, run = Arm.read, tmp_path / "run"

    def signalled(arm: Arm, numbers_4: list[float]) -> StepResult:
        if arm.name == "cl" and (run / "steps.csv").read_text().count("\n") == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(arm, numbers_4)

    monkeypatch.setattr(Arm, "read", signalled)
    assert tiny.train(run, log_every=3, **RUN).outcome.stopped == "stopped by SIGTERM after step 3 of 8"
    monkeypatch.setattr(Arm, "read", read)
    tiny.train(run, resume=True, log_every=3, **RUN)
    assert_equal_runs(run, one_by_one)


@pytest.mark.parametrize(
    ("given", "on_gpu", "seconds", "wanted"),
    [
        *((None, False, 0.001, 1), (7, False, 9.0, 7), (7, True, 9.0, 7)),
        *((None, True, float("inf"), 1), (None, True, 4.0, 1), (None, True, 0.5, 4), (None, True, 0.01, 10)),
    ],
)
def test_losses_are_read_at_least_every_two_seconds(
    given: int | None, on_gpu: bool, seconds: float, wanted: int
) -> None:
    """A scheduler waits about 30 seconds before it kills; the duration of the first step is unknown."""
    assert log_every_of(given, on_gpu, seconds) == wanted


@pytest.mark.parametrize("log_every", [1, 3])
def test_views_are_not_kept_for_the_replay(tmp_path: Path, log_every: int) -> None:
    """Ten batches of 1 024 views would fill a GPU; a replay needs only the images' indices."""
    with process_group("cpu") as group:
        coordinator = Coordinator(tiny.tiny_settings(**RUN, log_every=log_every), group, tmp_path / "run")
        made = list(coordinator.lockstep.steps(0, 4, lambda done: coordinator.step_batches(1, done), lambda step: 0))
    assert [each.step for each in made] == [1, 2, 3, 4]
    for each in made:
        assert each.inputs[""].views_VB3SS.numel() == 0
        assert len(each.inputs[""].indices_G) == 72


def test_local_views_are_not_kept_for_the_replay() -> None:
    """They have as many pixels as the other views."""
    views, labels_B = torch.zeros(2, 1, 3, 4, 4), torch.zeros(1, dtype=torch.int64)
    record = _record(1, {"": Batch(1, 0, views, labels_B, labels_B, labels_B, labels_B, 0, "", local_VB3SS=views)})
    assert record.inputs[""].local_VB3SS is None


class Waiting(TorchDispatchMode):
    """Record the operations that must wait for a result from the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(function).startswith(WAITS):
            self.noted.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("optimizer", "arms"), [("lars", small_arms()), ("sgd", {"cl": "dcl"})], ids=["lars", "sgd"])
def test_a_step_never_synchronises_with_the_device(tmp_path: Path, optimizer: str, arms: dict[str, Any]) -> None:
    """No value is read from the device between batch and update, except eigenvectors and singular values."""
    decomposed = {"directpred": "eigh", "directpred_partitions": "eigh", "mmcr": "svd"}
    changed = {**RUN, "arms": arms, "optimizer": {"name": optimizer, "warmup_epochs": 0}}
    with process_group("cpu") as group:
        coordinator = Coordinator(tiny.tiny_settings(**changed), group, tmp_path / "run")
        batch = next(coordinator.step_batches(1))[""]
        for arm in coordinator.arms:
            with Waiting() as waiting:
                arm.gradients(batch)
                arm.update(0.01, 1)
            assert all(decomposed.get(arm.name, "none") in name for name in waiting.noted), arm.name


def train_on_a_rank(run: Path, log_every: int, step: int, places: int) -> list[int]:
    with not_finite_once("ce", step) as tried:
        arms = {"cl": "dcl", "ce": "cross_entropy"}
        tiny.train(run, **{**RUN, "arms": arms, "log_every": log_every, "parallel": {"arm_groups": places}})
    return tried


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("places", [2, 1], ids=["an arm each", "both arms on both"])
def test_all_ranks_roll_back_together(tmp_path: Path, places: int) -> None:
    """A rank whose own arm is finite must neither stay where it is nor continue."""
    ranks.run(2, train_on_a_rank, tmp_path / "one", 1, 0, places)
    tried = ranks.run(2, train_on_a_rank, tmp_path / "three", 3, 3, places)
    assert tried == 2 * [[0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8]]
    assert_equal_runs(tmp_path / "three", tmp_path / "one")
