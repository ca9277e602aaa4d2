"""verify.py and --skip-bad: each harm done to a copy of a good run is one line, and nothing is said of a good one."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
import tiny
import torch
from safetensors.torch import load_file, save

from analysis import alignment, verify, weight_gap

ARMS = {"cl": "dcl", "nscl": "nscl", "ce": "cross_entropy"}
SNAPSHOT = "snapshots/nscl/epoch_0001.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "good"
    tiny.train(run, arms=ARMS)
    return run


@pytest.fixture
def run(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "run"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def change(run: Path, harm: Callable[[dict[str, torch.Tensor]], None], epoch: int = 1) -> None:
    """Rewrite a snapshot of `nscl` with a manifest that agrees."""
    path = run / f"snapshots/nscl/epoch_{epoch:04d}.safetensors"
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    tensors = load_file(path)
    harm(tensors)
    path.write_bytes(save(tensors, metadata=header))
    manifest = run / "snapshots/manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines:
        if line["file"] == f"nscl/epoch_{epoch:04d}.safetensors":
            line |= {
                "digest": hashlib.blake2b(path.read_bytes(), digest_size=32).hexdigest(),
                "bytes": path.stat().st_size,
            }
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))


def drop_line(path: Path, number: int) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:number] + lines[number + 1 :]))


def set_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.conv1.weight"].view(-1)[0] = float("nan")


def rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.other"] = tensors.pop("encoder.conv1.weight")


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.conv1.weight"] = tensors["encoder.conv1.weight"][:1].clone()


def shift(tensors: dict[str, torch.Tensor]) -> None:
    tensors["encoder.conv1.weight"] += 1e-6


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (lambda run: flip(run / SNAPSHOT), "damaged or foreign: expected"),
    "truncated": (lambda run: (run / SNAPSHOT).write_bytes(b"x"), "found 1 with"),
    "missing file": (lambda run: (run / SNAPSHOT).unlink(), "file is missing"),
    "missing line": (lambda run: drop_line(run / "snapshots/manifest.jsonl", 4), "arm 'nscl', epoch 1: expected one"),
    "lost tail": (lambda run: drop_line(run / "snapshots/manifest.jsonl", 8), "arm 'ce', epoch 2: expected one"),
    "not finite": (lambda run: change(run, set_nan), "conv1.weight': expected finite numbers"),
    "another name": (lambda run: change(run, rename), "tensor 'encoder.other': expected None, found"),
    "another shape": (lambda run: change(run, reshape), "found (1, 3, 3, 3)"),
    "another start": (lambda run: change(run, shift, epoch=0), "do not start with equal weights"),
    "a gap of rows": (lambda run: drop_line(run / "steps.csv", 3), "row 3: expected step 3, found 4"),
    "no rows": (lambda run: (run / "steps.csv").unlink(), "steps.csv: expected a table of steps, found no file"),
    "half a manifest": (lambda run: (run / "snapshots/manifest.jsonl").write_text("{\n"), "manifest.jsonl line 1"),
}


@pytest.mark.parametrize("harm", HARM)
def test_every_harm_is_found_and_named(run: Path, capsys: pytest.CaptureFixture[str], harm: str) -> None:
    """One that verify lets pass is found by nobody."""
    assert verify.main(["--run", str(run)]) == 0, capsys.readouterr().out
    do, message = HARM[harm]
    do(run)
    capsys.readouterr()
    assert verify.main(["--run", str(run)]) == 1
    assert message in capsys.readouterr().out


def test_two_runs_are_compared(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs, settings and weights of two runs: the same, other objectives on the same inputs, another seed."""
    tiny.train(tmp_path / "same", arms=ARMS)
    tiny.train(tmp_path / "other", arms={**ARMS, "nscl": {"objective": "nscl", "temperature": 0.2}}, epochs=1)
    tiny.train(tmp_path / "seed", arms=ARMS, epochs=1, seed=9)
    capsys.readouterr()
    assert verify.main(["--run", str(good), "--against", str(tmp_path / "same")]) == 0
    assert "inputs: identical up to step 10 of 10 and 10" in capsys.readouterr().out
    assert verify.main(["--run", str(good), "--against", str(tmp_path / "other")]) == 1
    out = capsys.readouterr().out
    assert "inputs: identical up to step 5 of 10 and 5" in out
    assert "settings: arms.nscl.temperature: 0.5 and 0.2" in out
    assert "arm 'nscl': the weights differ from epoch 1 on" in out
    assert "arm 'cl': the weights" in out  # the schedule of one epoch is another
    assert verify.main(["--run", str(good), "--against", str(tmp_path / "seed")]) == 1
    assert "inputs: identical up to step 0" in capsys.readouterr().out


def test_the_findings_are_written_where_a_report_finds_them(run: Path, tmp_path: Path) -> None:
    """With --output only; nothing wrong is a row, too, so that "never verified" looks different."""
    before = sorted(run.rglob("*"))
    assert verify.main(["--run", str(run)]) == 0
    assert sorted(run.rglob("*")) == before
    assert verify.main(["--run", str(run), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/verify.csv").read_text() == "last_epoch,finding\n2,\n"
    flip(run / SNAPSHOT)
    assert verify.main(["--run", str(run), "--output", str(tmp_path / "out")]) == 1
    rows = pandas.read_csv(tmp_path / "out/verify.csv")
    assert rows["last_epoch"].tolist() == [2]
    assert SNAPSHOT in rows["finding"][0]


@pytest.mark.parametrize("program", [weight_gap, alignment])
def test_a_bad_snapshot_stops_the_analysis_unless_it_may_be_skipped(
    run: Path, capsys: pytest.CaptureFixture[str], program: object
) -> None:
    """A flipped bit must not become a point of a figure; with --skip-bad it is one line and the rest is computed."""
    flip(run / SNAPSHOT)
    (run / "snapshots/ce/epoch_0002.safetensors").unlink()
    arguments = ["--run", str(run), *(["--samples", "64", "--split", "test"] if program is alignment else [])]
    assert program.main(arguments) == 2  # type: ignore[attr-defined]
    assert capsys.readouterr().err.count("\n") == 1
    assert program.main([*arguments, "--skip-bad", "--compare", "nscl", "ce", "gone"]) == 0  # type: ignore[attr-defined]
    errors = capsys.readouterr().err
    assert errors.count("skipped: ") == errors.count("\n") == 3
    assert "no arm 'gone'" in errors
    assert "epoch_0001.safetensors: damaged or foreign: expected" in errors
    name = "weight_gap.csv" if program is weight_gap else "test_alignment.csv"
    rows = pandas.read_csv(run / "analysis" / name)
    found = {(arm, epoch) for arm, epoch in zip(rows["arm"], rows["epoch"], strict=True)}
    assert found == {("nscl", 0), ("ce", 0), ("ce", 1), ("nscl", 2)}
