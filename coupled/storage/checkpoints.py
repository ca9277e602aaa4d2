"""Checkpoints: the state that an exact resume needs, one folder each; the two newest are kept.

checkpoints/step_00000120/ has one safetensors file per arm, with the tensors of its network under "network/", those
that no snapshot has under "kept/", and those of its optimizer under "optimizer/". state.json has format,
settings_sha256, step, epoch, sums of the current epoch, digests of the other files, and last a digest of its own
content. The order of images, the views and the random numbers of a network are functions of seed and step and need no
state. A checkpoint is written to a temporary folder, fsynced and renamed, and it is renamed again before it is deleted,
so it is whole or absent. Nothing is pickled.
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
TENSOR = re.compile(r"network/.+|kept/.+|optimizer/[0-9]+/.+")
TEMPORARY = re.compile(r"\.step_[0-9]{8,}\.(removed\.)?tmp")


@dataclass(frozen=True)
class Checkpoint:
    """Completed steps and epochs, the tensors of every arm, and its sums over the current epoch."""

    step: int
    epoch: int
    arms: dict[str, dict[str, Tensor]]
    sums: dict[str, list[float]] = field(default_factory=dict)


class Part(NamedTuple):
    """An arm's part of a checkpoint: the digest of its file, and the manifest entry of its snapshot if there is one."""

    digest: str
    entry: dict[str, Any] | None


def write(folder: Path, state: Checkpoint, settings_sha256: str) -> None:
    """Write a checkpoint into `folder` and delete all but the two newest. Raise OSError with bytes needed and free."""
    clear_temporary(folder)
    for arm, tensors in state.arms.items():
        write_part(folder, state.step, arm, tensors)
    commit(folder, state.step, state.epoch, state.sums, state.arms.keys(), settings_sha256)


def clear_temporary(folder: Path) -> None:
    """Delete temporary checkpoints that a crash left, before any rank writes. Other files stay."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if TEMPORARY.fullmatch(path.name):
            with errors_with_path(path):
                _delete(path)


def write_part(
    folder: Path, step: int, arm: str, tensors: Mapping[str, Tensor], entry: Mapping[str, Any] | None = None
) -> None:
    """Write the tensors of one arm into the temporary checkpoint, then a `.part` file that marks them as written.

    Raises OSError with bytes needed and free.
    """
    temporary = _temporary(folder, step)
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with _deleted_on_error(temporary):
        write_durably(temporary / f"{arm}.safetensors", data, folder.parent)
        part = json.dumps({"digest": digest(data), "entry": entry}).encode()
        write_durably(temporary / f"{arm}.part", part, folder.parent)


def read_parts(folder: Path, step: int, arms: Collection[str]) -> list[Part] | None:
    """Return the parts of `arms` in the temporary checkpoint; None until all are written."""
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
    """Make the checkpoint of `step` valid after the parts of all `arms` are written; delete all but the two newest.

    Raises OSError with bytes needed and free.
    """
    temporary, final = _temporary(folder, step), folder / f"step_{step:08d}"
    if (parts := read_parts(folder, step, arms)) is None:
        raise FileNotFoundError(f"{temporary}: files of arms were deleted or moved while the checkpoint was written")
    digests = {arm: part.digest for arm, part in zip(arms, parts, strict=True)}
    of_epoch = {arm: list(numbers) for arm, numbers in sums.items()}
    header = CheckpointHeader(settings_sha256, step, epoch, of_epoch, digests)
    with _deleted_on_error(temporary):
        write_durably(temporary / FILE, encode_header(header), folder.parent)
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
    """Return the checkpoints in `folder`, oldest first. A folder with another name, such as a copy, is ignored."""
    steps = {path: step_of(path) for path in folder.iterdir()} if folder.is_dir() else {}
    return sorted((path for path, step in steps.items() if step >= 0), key=lambda path: steps[path])


def read_newest(
    folder: Path, settings_sha256: str | None = None, own: Collection[str] | None = None
) -> Checkpoint | None:
    """Return the newest checkpoint of all arms, or of the arms `own`, with digests checked; None if there is none.

    Raises ValueError that names the damaged or foreign file and what to delete, also if the checkpoint has another
    `settings_sha256`; None accepts any.
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
    """Yield everything that is wrong with the checkpoint in `folder`, one line each; reads only.

    With `settings_sha256`, a checkpoint of a run with other settings is an error.
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
    """Return the tensors of an arm, digest checked. Raise ValueError that names the file and what is wrong."""
    path, expected = checkpoint / f"{arm}.safetensors", header.digests[arm]
    with errors_with_path(path):
        data = path.read_bytes() if path.is_file() else b""
    if digest(data) != expected:
        raise ValueError(f"{path}: damaged: expected digest {expected}, found {digest(data)}")
    try:
        tensors = load(data)
    except (SafetensorError, KeyError) as error:  # an unknown dtype raises KeyError
        raise ValueError(f"{path}: not a readable safetensors file: {error}") from None
    for name in tensors:
        if not TENSOR.fullmatch(name):
            raise ValueError(f"{path}: expected tensors of a network and its optimizer, found '{name}'")
    return tensors


def _temporary(folder: Path, step: int) -> Path:
    return folder / f".step_{step:08d}.tmp"


def newest_step(folder: Path) -> int | None:
    """Return the step of the newest checkpoint; None if there is none."""
    there = list_checkpoints(folder)
    return step_of(there[-1]) if there else None


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; if the process is killed meanwhile, no partial checkpoint keeps the name."""
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
    """Delete a checkpoint that could not be written: it would occupy space on a full disk."""
    try:
        yield
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of `optimizer` as tensors named "<parameter number>/<key>", without its hyperparameters.

    Raises TypeError for an optimizer whose state is not tensors and numbers.
    """
    tensors = {}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if value is None:
                continue
            if not isinstance(value, Tensor | int | float):
                raise TypeError(
                    f"{type(optimizer).__name__}: state '{key}' is a {type(value).__name__}, not a tensor or a number"
                )
            tensors[f"{number}/{key}"] = (
                value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
            )
    return tensors


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors that `optimizer_tensors` returned."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
