"""Resume states: what exact continuation needs, one folder a generation, the two newest kept.

resume/step_00000120/ holds state.json (format, settings_sha256, step, epoch, sums of the epoch begun, digests of the
files beside it, and last a digest of all that) and one safetensors file an arm: the tensors of its network under
"network/" and of its optimizer under "optimizer/". Order, views and whatever a network draws itself are functions of
seed and step and need no state. A generation is written in a temporary folder, fsynced and renamed, and renamed again
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

from coupled.storage.atomic_files import fsync_folder, space_named, write_durably
from coupled.storage.checkpoint_head import FILE, Head, digest, read_head, sealed, step_of

KEPT = 2
TENSOR = re.compile(r"network/.+|optimizer/[0-9]+/.+")
TEMPORARY = re.compile(r"\.step_[0-9]{8,}\.(removed\.)?tmp")


@dataclass(frozen=True)
class ResumeState:
    """Steps and whole epochs done, every arm's tensors, and its sums over the epoch begun, whatever they count."""

    step: int
    epoch: int
    arms: dict[str, dict[str, Tensor]]
    sums: dict[str, list[float]] = field(default_factory=dict)


class Part(NamedTuple):
    """What an arm's owner says of its part of a generation: the digest of the file, the snapshot's entry if any."""

    digest: str
    entry: dict[str, Any] | None


def write(folder: Path, state: ResumeState, settings_sha256: str) -> None:
    """Write one generation into `folder` and drop all but the two newest. Raises OSError: bytes needed and free."""
    begin(folder)
    for arm, tensors in state.arms.items():
        write_part(folder, state.step, arm, tensors)
    commit(folder, state.step, state.epoch, state.sums, state.arms.keys(), settings_sha256)


def begin(folder: Path) -> None:
    """Clear away what a crash left, before any rank writes. What is not of a resume state stays."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if TEMPORARY.fullmatch(path.name):
            with space_named(path):
                _delete(path)


def write_part(
    folder: Path, step: int, arm: str, tensors: Mapping[str, Tensor], entry: Mapping[str, Any] | None = None
) -> None:
    """Write the tensors of one arm into the generation that is being made, and then that they are written.

    Raises OSError: bytes needed and free.
    """
    temporary = _temporary(folder, step)
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with _nothing_left(temporary):
        write_durably(temporary / f"{arm}.safetensors", data)
        write_durably(temporary / f"{arm}.part", json.dumps({"digest": digest(data), "entry": entry}).encode())


def read_parts(folder: Path, step: int, arms: Collection[str]) -> list[Part] | None:
    """What the owners of `arms` say of the generation that is being made; None until all have written theirs."""
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
    """Make the generation of `step` the newest, once the parts of all `arms` are written; drop all but two.

    Raises OSError: bytes needed and free.
    """
    temporary, final = _temporary(folder, step), folder / f"step_{step:08d}"
    parts = read_parts(folder, step, arms)
    assert parts is not None
    digests = {arm: part.digest for arm, part in zip(arms, parts, strict=True)}
    head = Head(settings_sha256, step, epoch, {arm: list(numbers) for arm, numbers in sums.items()}, digests)
    with _nothing_left(temporary):
        write_durably(temporary / FILE, sealed(head))
    with space_named(final):
        for arm in digests:
            (temporary / f"{arm}.part").unlink()
        if final.exists():
            _remove(final)
        temporary.rename(final)
        fsync_folder(folder)
        for old in generations(folder)[:-KEPT]:
            _remove(old)


def generations(folder: Path) -> list[Path]:
    """The generations in `folder`, oldest first. Whatever bears another name, such as a copy, is none."""
    steps = {path: step_of(path) for path in folder.iterdir()} if folder.is_dir() else {}
    return sorted((path for path, step in steps.items() if step >= 0), key=lambda path: steps[path])


def read_newest(
    folder: Path, settings_sha256: str | None = None, own: Collection[str] | None = None
) -> ResumeState | None:
    """The newest generation, digests checked, of all arms or of the `own`; None if there is none.

    Raises ValueError that names the damaged or foreign file and what to delete, also where `settings_sha256` is given
    and the generation has another one.
    """
    there = generations(folder)
    if not there:
        return None
    *older, newest = there
    try:
        head = read_head(newest, settings_sha256)
        missing = sorted(set(own or ()) - head.digests.keys())
        if missing:
            raise ValueError(f"{newest / FILE}: digests: no arm '{missing[0]}' (arms: {', '.join(head.digests)})")
        arms = {arm: _read_arm(newest, head, arm) for arm in (head.digests if own is None else own)}
    except ValueError as error:
        then = f"continue from {older[-1].name}" if older else "train from the beginning"
        raise ValueError(f"{error}; delete {newest} to {then}") from None
    return ResumeState(head.step, head.epoch, arms, head.sums)


def check_generation(folder: Path, settings_sha256: str | None) -> Iterator[str]:
    """Everything that is wrong with the generation in `folder`, a line each; reads only.

    With `settings_sha256` it must be a generation of a run with these settings.
    """
    try:
        head = read_head(folder, settings_sha256)
    except (OSError, ValueError) as error:
        yield str(error)
        return
    for arm in head.digests:
        try:
            _read_arm(folder, head, arm)
        except (OSError, ValueError) as error:
            yield str(error)
    expected = {FILE, *(f"{arm}.safetensors" for arm in head.digests)}
    for path in sorted(folder.iterdir()):
        if path.name not in expected:
            yield f"{path}: not a file of this resume state"


def _read_arm(generation: Path, head: Head, arm: str) -> dict[str, Tensor]:
    """The tensors of an arm, their digest checked. Raises ValueError that names the file and what is wrong."""
    path, expected = generation / f"{arm}.safetensors", head.digests[arm]
    with space_named(path):
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
    """The step of the newest generation; None if there is none."""
    there = generations(folder)
    return step_of(there[-1]) if there else None


def _remove(generation: Path) -> None:
    """Delete a generation; a process killed meanwhile leaves none that is half there."""
    removed = generation.with_name(f".{generation.name}.removed.tmp")
    if removed.exists():
        _delete(removed)
    generation.rename(removed)
    _delete(removed)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextlib.contextmanager
def _nothing_left(temporary: Path) -> Iterator[None]:
    """A generation that cannot be written is deleted: on a full disk it would be in the way."""
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
