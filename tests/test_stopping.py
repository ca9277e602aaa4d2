"""A run stopped at any step and resumed equals an uninterrupted run: signals, `--max-steps`, changed settings."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from support import tiny
from torch import Tensor, nn

from coupled import train
from coupled.arms.arm import Arm
from coupled.models import network
from coupled.monitoring.signals import StopSignals
from coupled.parallel.launcher import exit_status
from coupled.storage.checkpoints import read_newest
from coupled.stream.batches import Batch

TWO: dict[str, Any] = {**tiny.FEW_IMAGES, "arms": {"cl": "dcl", "ce": "cross_entropy"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of ten steps."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    tiny.train(run, **TWO)
    return run


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Return `at_step`: `at_step(7, do)` calls `do()` once, during step 7, after the gradients of arm `cl`."""
    gradients = Arm.gradients

    def patch(step: int, do: Callable[[], None]) -> None:
        seen: list[str] = []

        def patched(arm: Arm, batch: Batch) -> Tensor:
            result = gradients(arm, batch)
            if arm.name == "cl":
                seen.append(arm.name)
                if len(seen) == step:
                    do()
            return result

        monkeypatch.setattr(Arm, "gradients", patched)

    return patch


def assert_equal_runs(run: Path, whole: Path) -> None:
    assert tiny.snapshot_bytes(run) == tiny.snapshot_bytes(whole)
    for file in ("steps.csv", "snapshots/manifest.jsonl"):
        assert (run / file).read_bytes() == (whole / file).read_bytes()
    epochs = [pandas.read_csv(each / "epochs.csv")[["epoch", "arm", "loss", "lr"]] for each in (run, whole)]
    pandas.testing.assert_frame_equal(*epochs, check_exact=True)


@pytest.mark.parametrize(("name", "step"), [("SIGTERM", 7), ("SIGINT", 3), ("SIGUSR1", 5)])
def test_a_signal_stops_the_run_after_the_current_step(
    whole: Path, tmp_path: Path, at_step: Callable[..., None], name: str, step: int
) -> None:
    """SLURM allows 30 seconds. No step and no row is lost, and the previous signal handlers are restored."""
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    at_step(step, lambda: os.kill(os.getpid(), getattr(signal, name)))
    run = tmp_path / "run"
    assert tiny.train(run, **TWO).outcome.stopped == f"stopped by {name} after step {step} of 10"
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before
    state = read_newest(run / "checkpoints")
    assert state is not None
    assert state.step == step
    assert len(pandas.read_csv(run / "steps.csv")) == step
    assert tiny.train(run, resume=True, **TWO).outcome.stopped == ""
    assert_equal_runs(run, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_script_does_not_go_on_with_a_run_that_a_signal_stopped(
    tmp_path: Path, at_step: Callable[..., None], number: signal.Signals
) -> None:
    """It measured a part of the run as if it were complete. A stop that was asked for returns the run."""
    settings = tiny.tiny_settings(**TWO).resolved()
    (tmp_path / "tiny.yaml").write_text(json.dumps(settings))
    start = partial(train.train, tmp_path / "tiny.yaml", tmp_path / "run")
    assert start(max_steps=2).epochs() == [0]
    at_step(1, lambda: os.kill(os.getpid(), number))
    with pytest.raises(KeyboardInterrupt, match=f"stopped by {number.name} after step 3 of 10; .* resume=True"):
        start(resume=True)
    assert start(resume=True).epochs() == [0, 1, 2]


def test_only_a_stop_by_the_scheduler_has_a_special_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_step: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The job script requeues itself on this status. Under torchrun the status is 0; others count as failure."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(json.dumps(tiny.tiny_settings(**TWO).resolved()))
    command = ["--config", "tiny.yaml", "--overwrite"]
    assert train.main([*command, "--max-steps", "1"]) == 0
    for number, status in ((signal.SIGINT, 0), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)):
        at_step(1, lambda number=number: os.kill(os.getpid(), number))
        assert train.main(command) == status
        assert f"stopped by {number.name} after step 1 of 10; the run is saved" in capsys.readouterr().out
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "any")
    assert exit_status(preempted=True) == 0


def test_the_first_ctrl_c_prints_at_once_and_the_second_stops_at_once() -> None:
    """A step may take minutes, so the first Ctrl-C prints a message at once, from a thread. A signal that a launcher
    sends twice counts once.
    """
    said: list[str] = []
    stopped = threading.Event()

    def wait_for(number: int) -> None:
        for _ in range(1000):
            if len(said) == number:
                return
            time.sleep(0.01)
        raise AssertionError(said)

    with StopSignals(said.append, stopped.set) as signals:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # the listening thread receives it
        try:
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(1)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(2)
        assert said == [
            "SIGINT: the run stops after the current step and saves its state; a second Ctrl-C stops at once, without"
            " saving",
            "SIGTERM: the run stops after the current step and saves its state",
        ]
        assert signals.received == "SIGINT"
        os.kill(os.getpid(), signal.SIGTERM)
        assert not stopped.wait(0.1)
        signals.first[signal.SIGINT] = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)
        assert not stopped.wait(0.1)
        signals.first[signal.SIGINT] -= 10
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped.wait(10)
    assert len(said) == 2


def test_max_steps_stops_after_that_step(whole: Path, tmp_path: Path) -> None:
    """Stops after every third step of two epochs of five steps. A completed step is rejected as --max-steps."""
    run = tmp_path / "run"
    for step in (0, 11):
        with pytest.raises(ValueError, match=rf"--max-steps: got {step}; allowed is 1 to 10"):
            tiny.train(run, max_steps=step, **TWO)
    assert not run.exists()
    for step in (3, 6, 9):
        stopped = tiny.train(run, resume=True, max_steps=step, **TWO).outcome.stopped
        assert stopped == f"stopped by --max-steps after step {step} of 10"
    with pytest.raises(ValueError, match=r"--max-steps: got 9; allowed is 10 to 10"):
        tiny.train(run, resume=True, max_steps=9, **TWO)
    tiny.train(run, resume=True, **TWO)
    with pytest.raises(ValueError, match=r"--max-steps: got 4; the run is complete after step 10$"):
        tiny.train(run, resume=True, max_steps=4, **TWO)
    assert_equal_runs(run, whole)


def test_a_checkpoint_is_saved_after_the_set_minutes(whole: Path, tmp_path: Path, at_step: Callable[..., None]) -> None:
    """A killed run loses minutes, not a whole epoch."""

    def killed() -> None:
        raise KeyboardInterrupt

    at_step(8, killed)
    run, often = tmp_path / "run", {"checkpoint": {"every_minutes": 1e-9}}
    with pytest.raises(KeyboardInterrupt):
        tiny.train(run, **TWO, **often)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_00000006", "step_00000007"]
    tiny.train(run, resume=True, **TWO)
    assert_equal_runs(run, whole)


def test_dropout_does_not_depend_on_other_arms_or_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It also does not depend on a twin. Masks from the global generator would depend on all three."""
    build = network.build_encoder

    def with_dropout(*arguments: Any) -> nn.Module:
        encoder = build(*arguments)
        encoder.add_module("maxpool", nn.Dropout(0.2))
        return encoder

    monkeypatch.setattr(network, "build_encoder", with_dropout)
    tiny.train(tmp_path / "company", **{**TWO, "arms": {"ce": "cross_entropy", "cl": "dcl", "twin": "dcl"}})
    torch.rand(7)  # other code may use the global generator
    alone = {**TWO, "arms": {"cl": "dcl"}}
    tiny.train(tmp_path / "alone", max_steps=7, **alone)
    tiny.train(tmp_path / "alone", resume=True, **alone)
    one, other = (tiny.tensors(tmp_path / run, "cl", 2) for run in ("company", "alone"))
    twin = tiny.tensors(tmp_path / "company", "twin", 2)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert [name for name in one if not torch.equal(one[name], twin[name])] == []
    masks = network_masks()
    assert not torch.equal(masks[0], masks[1]), "every step should draw anew"


def network_masks() -> list[torch.Tensor]:
    from coupled.stream.seeds import torch_rng

    masks = []
    for number in range(2):
        with torch_rng(3, "network", 1, number, 0):
            masks.append(nn.functional.dropout(torch.ones(100), 0.5))
    return masks


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_non_finite_step_saves_the_state_before_it_and_its_batch(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    """The step can be repeated. Without the fault, the run then equals an undisturbed one."""
    gradients, run = Arm.gradients, tmp_path / "run"

    def broken(arm: Arm, batch: Batch) -> Tensor:
        numbers_4 = gradients(arm, batch)
        if (arm.name, batch.epoch, batch.number) == ("ce", 2, 2):
            numbers_4[3] = float("nan")
        return numbers_4

    monkeypatch.setattr(Arm, "gradients", broken)
    message = r"arm 'ce': gradient norm is nan\. .* step 8 \(epoch 2\).*replay/step_00000008\.json.*--max-steps 8"
    seen = []
    for resume in (False, True):
        with pytest.raises(FloatingPointError, match=message):
            tiny.train(run, resume=resume, max_steps=8 if resume else None, log_every=log_every, **TWO)
        state = read_newest(run / "checkpoints")
        assert state is not None
        assert state.step == 7
        seen.append((run / "replay/step_00000008.json").read_bytes())
    assert seen[0] == seen[1]
    replay = json.loads(seen[0])
    digests = pandas.read_csv(whole / "steps.csv")["inputs_digest"]
    inputs = replay["inputs"]["inputs_digest"]
    assert (replay["step"], inputs["batch"], inputs["digest"], len(inputs["indices"])) == (8, 2, digests[7], 52)
    assert replay["arms"]["ce"]["grad_norm"] == "nan"
    assert float(replay["arms"]["cl"]["loss"]) == pandas.read_csv(whole / "steps.csv")["cl_loss"][7]
    monkeypatch.setattr(Arm, "gradients", gradients)
    tiny.train(run, resume=True, log_every=log_every, **TWO)
    assert_equal_runs(run, whole)


def test_a_run_resumes_only_with_the_same_settings(whole: Path, tmp_path: Path) -> None:
    """A changed key that affects the result is an error with both values. Other keys may change."""
    run = tmp_path / "run"
    tiny.train(run, max_steps=6, **TWO)
    for changed, message in (
        ({"temperature": 0.2}, "temperature was 0.5, is 0.2"),
        ({"batch": {"size": 26}}, "batch.size was 52, is 26"),
        ({"epochs": 3}, "epochs was 2, is 3"),
        ({"snapshots": {"every_epochs": 2}}, "snapshots.every_epochs was 1, is 2"),
        ({"arms": {"cl": "dcl"}}, "arms.ce was {'objective': 'cross_entropy'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            tiny.train(run, resume=True, **{**TWO, **changed})
    free = {
        "dataset": {**TWO["dataset"], "num_workers": 2},
        "checkpoint": {"every_minutes": None},
        "device": "auto",
    }
    tiny.train(run, resume=True, **{**TWO, **free})
    assert_equal_runs(run, whole)
    assert json.loads((run / "run.json").read_text())["settings"]["dataset"]["num_workers"] == 2


def test_epochs_may_change_where_the_learning_rate_does_not_depend_on_them(tmp_path: Path) -> None:
    """With a constant learning rate a longer run begins like a shorter one. Fewer epochs than done are rejected."""
    constant = {**TWO, "optimizer": {**tiny.TINY["optimizer"], "schedule": "constant"}}
    tiny.train(tmp_path / "run", epochs=1, **constant)
    tiny.train(tmp_path / "run", epochs=2, resume=True, **constant)
    tiny.train(tmp_path / "straight", epochs=2, **constant)
    assert_equal_runs(tmp_path / "run", tmp_path / "straight")
    with pytest.raises(ValueError, match=r"epochs: got 1 \(.* steps\); .* are already trained; use more"):
        tiny.train(tmp_path / "run", epochs=1, resume=True, **constant)


def test_a_run_does_not_resume_on_other_images(tmp_path: Path) -> None:
    """The images in a folder may change while its path does not."""
    tiny.train(tmp_path / "run", max_steps=1, **TWO)
    about = json.loads((tmp_path / "run/run.json").read_text())
    about["dataset"]["train_digest"] = "0" * 32
    (tmp_path / "run/run.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"dataset: the images have changed .*00000000"):
        tiny.train(tmp_path / "run", resume=True, **TWO)


def test_partial_rows_are_removed_and_missing_rows_are_an_error(whole: Path, tmp_path: Path) -> None:
    """A partial row is written again. Rows that are missing cannot be recovered."""
    run = tmp_path / "run"
    tiny.train(run, max_steps=6, **TWO)
    with (run / "steps.csv").open("a") as file:
        file.write("2,7,abc")
    with (run / "snapshots/manifest.jsonl").open("a") as file:
        file.write('{"arm": "cl", "ep')
    tiny.train(run, resume=True, max_steps=8, **TWO)
    lines = (run / "steps.csv").read_text().splitlines(keepends=True)
    (run / "steps.csv").write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(ValueError, match=r"steps\.csv: rows are missing: expected all up to step 8"):
        tiny.train(run, resume=True, **TWO)
    (run / "steps.csv").write_text("".join(lines))
    tiny.train(run, resume=True, **TWO)
    assert_equal_runs(run, whole)
