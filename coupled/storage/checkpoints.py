"""Checkpoints: what exact continuation needs, a folder each, the two newest kept.

checkpoints/step_00000120/ holds state.json (format, settings_sha256, step, epoch, sums of the epoch begun, digests of
the files beside it, and last a digest of all that) and one safetensors file an arm: the tensors of its network under
"network/" and of its optimizer under "optimizer/". Order, views and whatever a network draws itself are functions of
seed and step and need no state. A checkpoint is written in a temporary folder, fsynced and renamed, and renamed again
before it is deleted: it is whole or absent. Nothing is pickled.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from coupled.storage.atomic_files import errors_with_path, fsync_folder, write_durably
from coupled.storage.checkpoint_head import FILE, CheckpointHeader, digest, encode_header, read_header, step_of

KEEP_NEWEST = 2
TENSOR = re.compile(r"network/.+|optimizer/[0-9]+/.+")
TEMPORARY = re.compile(r"\.step_[0-9]{8,}\.(removed\.)?tmp")


@dataclass(frozen=True)
class Checkpoint:
    """Steps and whole epochs done, every arm's tensors, and its sums over the epoch begun, whatever they count."""

    step: int
    epoch: int
    arms: dict[str, dict[str, Tensor]]
    sums: dict[str, list[float]] = field(default_factory=dict)


class Part(NamedTuple):
    """What an arm's owner says of its part of a checkpoint: the digest of the file, the snapshot's entry if any."""

    digest: str
    entry: dict[str, Any] | None


def write(folder: Path, state: Checkpoint, settings_sha256: str) -> None:
    """Write one checkpoint into `folder` and drop all but the two newest. Raises OSError: bytes needed and free."""
    clear_temporary(folder)
    for arm, tensors in state.arms.items():
        write_part(folder, state.step, arm, tensors)
    commit(folder, state.step, state.epoch, state.sums, state.arms.keys(), settings_sha256)


def clear_temporary(folder: Path) -> None:
    """Clear away what a crash left, before any rank writes. What is not of a checkpoint stays."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if TEMPORARY.fullmatch(path.name):
            with errors_with_path(path):
                _delete(path)


def write_part(
    folder: Path, step: int, arm: str, tensors: Mapping[str, Tensor], entry: Mapping[str, Any] | None = None
) -> None:
    """Write the tensors of one arm into the checkpoint that is being made, and then that they are written.

    Raises OSError: bytes needed and free.
    """
    temporary = _temporary(folder, step)
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with _deleted_on_error(temporary):
        write_durably(temporary / f"{arm}.safetensors", data)
        write_durably(temporary / f"{arm}.part", json.dumps({"digest": digest(data), "entry": entry}).encode())


def read_parts(folder: Path, step: int, arms: Collection[str]) -> list[Part] | None:
    """What the owners of `arms` say of the checkpoint that is being made; None until all have written theirs."""
    files = [_temporary(folder, step) / f"{arm}.part" for arm in arms]
    if not all(file.exists() for file in files):
        return None
    return [Part(**json.loads(file.read_bytes())) for file in files]


def commit(
    folder: Path,
    step: int,
    epoch: int,
    sums: Mapping[str, Sequence[float]],
    arms: Collection[str],
    settings_sha256: str,
) -> None:
    """Make the checkpoint of `step` the newest, once the parts of all `arms` are written; drop all but two.

    Raises OSError: bytes needed and free.
    """
    temporary, final = _temporary(folder, step), folder / f"step_{step:08d}"
    parts = read_parts(folder, step, arms)
    assert parts is not None
    digests = {arm: part.digest for arm, part in zip(arms, parts, strict=True)}
    header = CheckpointHeader(
        settings_sha256, step, epoch, {arm: list(numbers) for arm, numbers in sums.items()}, digests
    )
    with _deleted_on_error(temporary):
        write_durably(temporary / FILE, encode_header(header))
    with errors_with_path(final):
        for arm in digests:
            (temporary / f"{arm}.part").unlink()
        if final.exists():
            _remove(final)
        temporary.rename(final)
        fsync_folder(folder)
        for old in list_checkpoints(folder)[:-KEEP_NEWEST]:
            _remove(old)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first. Whatever bears another name, such as a copy, is none."""
    steps = {path: step_of(path) for path in folder.iterdir()} if folder.is_dir() else {}
    return sorted((path for path, step in steps.items() if step >= 0), key=lambda path: steps[path])


def read_newest(
    folder: Path, settings_sha256: str | None = None, own: Collection[str] | None = None
) -> Checkpoint | None:
    """The newest checkpoint, digests checked, of all arms or of the `own`; None if there is none.

    Raises ValueError that names the damaged or foreign file and what to delete, also where `settings_sha256` is given
    and the checkpoint has another one.
    """
    there = list_checkpoints(folder)
    if not there:
        return None
    *older, newest = there
    try:
        header = read_header(newest, settings_sha256)
        missing = sorted(set(own or ()) - header.digests.keys())
        if missing:
            raise ValueError(f"{newest / FILE}: digests: no arm '{missing[0]}' (arms: {', '.join(header.digests)})")
        arms = {arm: _read_arm(newest, header, arm) for arm in (header.digests if own is None else own)}
    except ValueError as error:
        then = f"continue from {older[-1].name}" if older else "train from the beginning"
        raise ValueError(f"{error}; delete {newest} to {then}") from None
    return Checkpoint(header.step, header.epoch, arms, header.sums)


def check_checkpoint(folder: Path, settings_sha256: str | None) -> Iterator[str]:
    """Everything that is wrong with the checkpoint in `folder`, a line each; reads only.

    With `settings_sha256` it must be a checkpoint of a run with these settings.
    """
    try:
        header = read_header(folder, settings_sha256)
    except (OSError, ValueError) as error:
        yield str(error)
        return
    for arm in header.digests:
        try:
            _read_arm(folder, header, arm)
        except (OSError, ValueError) as error:
            yield str(error)
    expected = {FILE, *(f"{arm}.safetensors" for arm in header.digests)}
    for path in sorted(folder.iterdir()):
        if path.name not in expected:
            yield f"{path}: not a file of this checkpoint"


def _read_arm(checkpoint: Path, header: CheckpointHeader, arm: str) -> dict[str, Tensor]:
    """The tensors of an arm, their digest checked. Raises ValueError that names the file and what is wrong."""
    path, expected = checkpoint / f"{arm}.safetensors", header.digests[arm]
    with errors_with_path(path):
        data = path.read_bytes() if path.is_file() else b""
    if digest(data) != expected:
        raise ValueError(f"{path}: damaged: its digest should be {expected}, found {digest(data)}")
    try:
        tensors = load(data)
    except (SafetensorError, KeyError) as error:  # a type that torch does not know is a KeyError
        raise ValueError(f"{path}: not a readable safetensors file: {error}") from None
    for name in tensors:
        if not TENSOR.fullmatch(name):
            raise ValueError(f"{path}: expected tensors of a network and its optimizer, found '{name}'")
    return tensors


def _temporary(folder: Path, step: int) -> Path:
    return folder / f".step_{step:08d}.tmp"


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint; None if there is none."""
    there = list_checkpoints(folder)
    return step_of(there[-1]) if there else None


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; a process killed meanwhile leaves none that is half there."""
    removed = checkpoint.with_name(f".{checkpoint.name}.removed.tmp")
    if removed.exists():
        _delete(removed)
    checkpoint.rename(removed)
    _delete(removed)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextlib.contextmanager
def _deleted_on_error(temporary: Path) -> Iterator[None]:
    """A checkpoint that cannot be written is deleted: on a full disk it would be in the way."""
    try:
        yield
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of `optimizer` as tensors named "<parameter number>/<key>"; its settings are not state.

    Raises TypeError for an optimizer whose state is not tensors and numbers.
    """
    tensors = {}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if value is None:
                continue
            if not isinstance(value, Tensor | int | float):
                raise TypeError(f"{type(optimizer).__name__} keeps a {type(value).__name__} as '{key}'")
            tensors[f"{number}/{key}"] = (
                value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
            )
    return tensors


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
