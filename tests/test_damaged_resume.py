"""`--resume` of an incomplete run: refused if an epoch would stay missing, with a command that repairs it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import tiny

from coupled.analysis import verify

TWO: dict[str, Any] = {
    **tiny.FEW_IMAGES,
    "arms": {"cl": "dcl", "ce": "cross_entropy"},
    "snapshots": {"every_epochs": 1},
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "ended"
    tiny.train(run, **TWO)
    return run


@pytest.fixture
def run(ended: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "run"))


def older_manifest(run: Path) -> None:
    path = run / "snapshots/manifest.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


LOST: dict[str, tuple[Callable[[Path], object], str]] = {
    "an older manifest": (
        older_manifest,
        "manifest.jsonl: arm 'cl', epoch 2: no snapshot, but the newest checkpoint",
    ),
    "no manifest": (lambda run: (run / "snapshots/manifest.jsonl").unlink(), "arm 'cl', epoch 0: no snapshot, but"),
    "a file": (
        lambda run: (run / "snapshots/ce/epoch_0001.safetensors").unlink(),
        "ce/epoch_0001.safetensors: the file is missing",
    ),
    "part of a file": (
        lambda run: (run / "snapshots/ce/epoch_0002.safetensors").write_bytes(b"x"),
        "or does not have its",
    ),
    "all checkpoints": (
        lambda run: shutil.rmtree(run / "checkpoints"),
        "checkpoints: no checkpoint, but step 10 was saved",
    ),
    "all checkpoints and the digests of rows": (
        lambda run: (shutil.rmtree(run / "checkpoints"), (run / "log_digests.jsonl").unlink()),
        "checkpoints: no checkpoint, but step 10 was saved",
    ),
    "the rows to another run": (
        lambda run: edit(run / "log_digests.jsonl", '"settings_sha256": "', '"settings_sha256": "0'),
        "log_digests.jsonl line 1: of a run with other settings",
    ),
    "the digests of rows": (lambda run: (run / "log_digests.jsonl").write_text("{\n"), "log_digests.jsonl line 1: not"),
}


@pytest.mark.parametrize("lost", LOST)
def test_a_run_with_missing_files_of_finished_epochs_is_not_resumed(run: Path, lost: str) -> None:
    """It would end with an epoch missing, or start again without a warning."""
    lose, message = LOST[lost]
    lose(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny.train(run, resume=True, **TWO)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_suggested_repair_leads_to_a_complete_run(run: Path, ended: Path) -> None:
    """The epoch is trained again from the checkpoint before it, bit for bit."""
    (run / "snapshots/cl/epoch_0002.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"restore the snapshot, delete step_00000010 in \S+/checkpoints to train the epoch again"
    ):
        tiny.train(run, resume=True, **TWO)
    shutil.rmtree(run / "checkpoints/step_00000010")
    tiny.train(run, resume=True, **TWO)
    assert tiny.snapshot_bytes(run) == tiny.snapshot_bytes(ended)
    assert verify.main(["--run-dir", str(run)]) == 0
    (run / "snapshots/cl/epoch_0000.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"completed epoch 2; restore the snapshot, or pass --overwrite to start the run again"
    ):
        tiny.train(run, resume=True, **TWO)


def test_an_interrupted_overwrite_can_be_repeated_but_not_resumed(run: Path, ended: Path) -> None:
    """Checkpoints are deleted first; remaining snapshots do not prevent another `--overwrite`."""
    shutil.rmtree(run / "checkpoints")
    (run / "log_digests.jsonl").unlink()
    (run / "snapshots/cl/epoch_0001.safetensors").unlink()
    with pytest.raises(ValueError, match="or pass --overwrite to start the run again"):
        tiny.train(run, resume=True, **TWO)
    tiny.train(run, overwrite=True, **TWO)
    assert tiny.snapshot_bytes(run) == tiny.snapshot_bytes(ended)


def test_edited_logs_do_not_stop_a_resume_and_verify_still_reports_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training does not depend on them; new digests would hide the edit."""
    run = tmp_path / "run"
    tiny.train(run, max_steps=7, **TWO)
    for name, old, new in (("steps.csv", "\n1,3,", "\n1,3,f"), ("run.json", '"world_size": 1', '"world_size": 2')):
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new))
    capsys.readouterr()
    tiny.train(run, resume=True, **TWO, log_every=2)
    said = capsys.readouterr().out
    assert "steps.csv: the rows of steps 1 to 5: not as written" in said
    assert "run.json: damaged: it does not match its digest; the file is not changed" in said
    assert verify.main(["--run-dir", str(run)]) == 1
    found = capsys.readouterr().out
    assert "run.json: changed since it was written" in found
    assert "steps.csv: the rows of steps 1 to 5: not as written" in found
