"""Checkpoints are complete or ignored, the last two are kept, and damage is reported."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from coupled.models.optimizer import build_optimizer
from coupled.storage import checkpoints
from coupled.storage.checkpoint_head import CheckpointHeader, digest, encode_header
from coupled.storage.checkpoints import Checkpoint, check_checkpoint

SHA = "5" * 64  # settings_sha256


def state(step: int) -> Checkpoint:
    tensors = {"network/w": torch.full((3,), float(step)), "optimizer/0/n": torch.tensor(2)}
    return Checkpoint(step, step // 5, {"cl": tensors}, {"cl": [0.5, 1.25, 0.0]})


def write(folder: Path, *steps: int, sha: str = SHA) -> Path:
    """Write one checkpoint per step as a run does, and return the last one."""
    for step in steps:
        checkpoints.write(folder, state(step), sha)
    return folder / f"step_{steps[-1]:08d}"


def test_the_newest_checkpoint_is_read_and_two_are_kept(tmp_path: Path) -> None:
    """Sorted as numbers: step 100 is newer than step 95, and 5 is older than both."""
    write(tmp_path, 5, 95, 100)
    read = checkpoints.read_newest(tmp_path, SHA)
    assert read is not None
    assert (read.step, read.epoch, read.sums) == (100, 20, state(100).sums)
    assert torch.equal(read.arms["cl"]["network/w"], torch.full((3,), 100.0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000095", "step_00000100"]
    assert not list(check_checkpoint(tmp_path / "step_00000100", SHA))


def test_read_returns_none_without_a_checkpoint(tmp_path: Path) -> None:
    """A run killed before its first checkpoint starts from the beginning."""
    assert checkpoints.read_newest(tmp_path) is None
    assert checkpoints.read_newest(tmp_path / "checkpoints") is None


def test_a_half_written_checkpoint_is_never_read(tmp_path: Path) -> None:
    """A process killed while writing leaves a temporary folder, which is not a state and is cleared by the next
    write.
    """
    write(tmp_path, 5)
    torn = tmp_path / ".step_00000010.tmp"
    torn.mkdir()
    (torn / "state.json").write_text("{")
    read = checkpoints.read_newest(tmp_path)
    assert read is not None
    assert read.step == 5
    write(tmp_path, 10)
    assert not torn.exists()


def test_a_checkpoint_whose_files_disappear_while_it_is_written_names_its_folder(tmp_path: Path) -> None:
    """The run folder may be deleted by another program."""
    with pytest.raises(FileNotFoundError, match=rf"^{tmp_path}/\S+: files of arms were deleted or moved"):
        checkpoints.commit(tmp_path, 5, 1, {"cl": [0.5, 1.25, 0.0]}, ("cl",), SHA)


def test_other_files_and_folders_are_neither_read_nor_deleted(tmp_path: Path) -> None:
    """Copies of checkpoints and notes beside them must survive, and must not stop the run."""
    checkpoint = write(tmp_path, 5)
    names = ["step_00000009 (copy)", "step_9", "step_0000000٩", ".step_00000009"]
    for name in names:
        shutil.copytree(checkpoint, tmp_path / name)
    (tmp_path / "step_00000010").write_text("a file")
    (tmp_path / "notes.tmp").mkdir()
    read = checkpoints.read_newest(tmp_path, SHA)
    assert read is not None
    assert read.step == 5
    assert checkpoints.list_checkpoints(tmp_path) == [checkpoint]
    write(tmp_path, 10, 15)
    assert {*names, "notes.tmp", "step_00000010", "step_00000015"} == {path.name for path in tmp_path.iterdir()}


def test_a_partly_deleted_checkpoint_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process killed while deleting the third checkpoint leaves two complete ones, in any order of deletion."""
    write(tmp_path, 5, 10)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda path, **_: (path / "state.json").unlink())
        write(tmp_path, 15)
    shutil.rmtree(tmp_path / "step_00000015")
    shutil.rmtree(tmp_path / "step_00000010")
    assert checkpoints.read_newest(tmp_path, SHA) is None
    write(tmp_path, 20)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000020"]


def changed(checkpoint: Path, **keys: Any) -> None:
    """Change header values and recompute the digest, as a forged checkpoint would."""
    header = CheckpointHeader(
        **{
            k: v
            for k, v in json.loads((checkpoint / "state.json").read_text()).items()
            if k in CheckpointHeader._fields
        }
    )
    (checkpoint / "state.json").write_bytes(encode_header(header._replace(**keys)))


def test_a_changed_bit_in_a_checkpoint_header_is_detected(tmp_path: Path) -> None:
    """A step, a sum, a digest or a key that a disk has changed must neither be continued from nor end in a
    traceback.
    """
    checkpoint = write(tmp_path, 5, 10)
    good = (checkpoint / "state.json").read_bytes()
    for place in range(len(good)):
        for bit in (0, 1, 2, 5, 7):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            (checkpoint / "state.json").write_bytes(bad)
            with pytest.raises(
                ValueError, match=r"state\.json: .*; delete \S+10 to continue from step_00000005$"
            ) as told:
                checkpoints.read_newest(tmp_path, SHA)
            assert "\n" not in str(told.value)
    (checkpoint / "state.json").write_bytes(good)
    assert not list(check_checkpoint(checkpoint, SHA))


def test_a_checkpoint_of_another_run_or_step_is_refused(tmp_path: Path) -> None:
    """A checkpoint of another run has the same shapes, so training would continue from it silently."""
    checkpoint = write(tmp_path, 5, sha="6" * 64)
    message = r"state\.json: of a run with other settings: expected settings_sha256 5+, found 6+; delete \S+05 to train"
    with pytest.raises(ValueError, match=message):
        checkpoints.read_newest(tmp_path, SHA)
    checkpoint = checkpoint.rename(tmp_path / "step_00000006")
    with pytest.raises(ValueError, match=r"state\.json: step: expected the step of its folder, step_00000006, found 5"):
        checkpoints.read_newest(tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"step": "5"}, "step: expected int, found str"),
        ({"step": True}, "step: expected int, found bool"),
        ({"epoch": 9}, "epoch: expected 0 to 5, the steps done, found 9"),
        ({"epoch": -1}, "epoch: expected 0 to 5"),
        ({"sums": []}, "sums: expected dict, found list"),
        ({"sums": {"cl": 3.0}}, "sums: expected an arm and finite numbers, found 'cl' and 3.0"),
        ({"sums": {"cl": [float("nan")]}}, "sums: expected an arm and finite numbers"),
        ({"sums": {"ce": [1.0]}}, "sums: expected an arm and finite numbers, found 'ce'"),
        ({"digests": {"../../cl": "0"}}, "digests: expected an arm and the digest of its file, found '../../cl'"),
        ({"digests": {"cl": 3}}, "digests: expected an arm and the digest of its file, found 'cl' and 3"),
        ({"digests": {"ce": "0"}, "sums": {}}, "digests: no arm 'cl'"),
    ],
)
def test_a_header_with_a_correct_digest_and_invalid_content_is_refused(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    """Run folders may be untrusted: invalid content must give a one-line error, not a KeyError or a TypeError."""
    changed(write(tmp_path, 5), **keys)
    with pytest.raises(ValueError, match=re.escape(message)):
        checkpoints.read_newest(tmp_path, SHA, ["cl"])


def test_a_damaged_checkpoint_is_reported_with_a_fix(tmp_path: Path) -> None:
    """Falling back silently would hide a failing disk."""
    checkpoint = write(tmp_path, 5)
    path = checkpoint / "cl.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    message = r"cl\.safetensors: damaged: .*; delete .*step_00000005 to train from the beginning"
    with pytest.raises(ValueError, match=message):
        checkpoints.read_newest(tmp_path, SHA)
    (checkpoint / "cl.part").touch()
    assert [line.split(": ")[1] for line in check_checkpoint(checkpoint, SHA)] == [
        "damaged",
        "not a file of this checkpoint",
    ]
    for text, found in (
        ("{}", "expected format coupled.checkpoint.1, found None;"),
        (
            '{"format": "coupled.resume.1"}',
            r"expected .*, found coupled.resume.1 \(written by another version of coupled; use that version",
        ),
        ("[[", "damaged: not valid JSON"),
    ):
        (checkpoint / "state.json").write_text(text)
        with pytest.raises(ValueError, match=rf"state\.json: {found}"):
            checkpoints.read_newest(tmp_path)
    (checkpoint / "state.json").unlink()
    assert list(check_checkpoint(checkpoint, None)) == [f"{checkpoint / 'state.json'}: missing"]


def test_files_without_checkpoint_tensors_are_refused(tmp_path: Path) -> None:
    """They are refused even if their digest is correct."""
    checkpoint = write(tmp_path, 5)
    for data, message in (
        (save({"elsewhere/w": torch.zeros(1)}), "expected tensors of a network and its optimizer, found 'elsewhere/w'"),
        (b"no tensors", "not a readable safetensors file"),
    ):
        (checkpoint / "cl.safetensors").write_bytes(data)
        changed(checkpoint, digests={"cl": digest(data)})
        with pytest.raises(ValueError, match=message):
            checkpoints.read_newest(tmp_path, SHA)


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_an_optimizer_continues_exactly_from_its_tensors(name: str) -> None:
    """Momentum, second moments and AdamW's step count all matter to the next bit."""

    def trained(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            for group in optimizer.param_groups:
                group["lr"] = 0.1
            parameter.grad = torch.sin(torch.arange(6.0) + step).reshape(2, 3)
            optimizer.step()

    straight = torch.nn.Parameter(torch.ones(2, 3))
    trained(
        straight,
        build_optimizer(
            [straight], name, **({"betas": (0.9, 0.999)} if name == "adamw" else {"momentum": 0.9}), weight_decay=0.01
        ),
        range(6),
    )

    stopped = torch.nn.Parameter(torch.ones(2, 3))
    before = build_optimizer(
        [stopped], name, **({"betas": (0.9, 0.999)} if name == "adamw" else {"momentum": 0.9}), weight_decay=0.01
    )
    trained(stopped, before, range(3))
    after = build_optimizer(
        [stopped], name, **({"betas": (0.9, 0.999)} if name == "adamw" else {"momentum": 0.9}), weight_decay=0.01
    )
    checkpoints.load_optimizer_tensors(after, checkpoints.optimizer_tensors(before))
    trained(stopped, after, range(3, 6))
    assert torch.equal(straight, stopped)
