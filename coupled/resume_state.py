"""Resume states: what exact continuation needs, one folder a generation, the two newest kept.

resume/step_00000120/ holds state.json (format, step, epoch, sums of the epoch begun, digests) and one safetensors file
an arm: the tensors of its network under "network/" and of its optimizer under "optimizer/". Order, views and whatever a
network draws itself are functions of seed and step and need no state. A generation is written in a temporary folder,
fsynced and renamed: it is whole or absent. Nothing is pickled.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from coupled.durable import fsync_folder, write_durably

FORMAT = "coupled.resume.1"
KEPT = 2


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


def write(folder: Path, state: ResumeState) -> None:
    """Write one generation into `folder` and drop all but the two newest. Raises OSError: bytes needed and free."""
    begin(folder)
    for arm, tensors in state.arms.items():
        write_part(folder, state.step, arm, tensors)
    commit(folder, state.step, state.epoch, state.sums, list(state.arms))


def begin(folder: Path) -> None:
    """Clear away what a crash left, before any rank writes."""
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover)


def write_part(
    folder: Path, step: int, arm: str, tensors: Mapping[str, Tensor], entry: Mapping[str, Any] | None = None
) -> None:
    """Write the tensors of one arm into the generation that is being made, and then that they are written.

    Raises OSError: bytes needed and free.
    """
    temporary = _temporary(folder, step)
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    try:
        write_durably(temporary / f"{arm}.safetensors", data)
        write_durably(temporary / f"{arm}.part", json.dumps({"digest": _digest(data), "entry": entry}).encode())
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # on a full disk it would be in the way
        raise


def read_parts(folder: Path, step: int, arms: Sequence[str]) -> list[Part] | None:
    """What the owners of `arms` say of the generation that is being made; None until all have written theirs."""
    files = [_temporary(folder, step) / f"{arm}.part" for arm in arms]
    if not all(file.exists() for file in files):
        return None
    return [Part(**json.loads(file.read_bytes())) for file in files]


def commit(folder: Path, step: int, epoch: int, sums: Mapping[str, Sequence[float]], arms: Sequence[str]) -> None:
    """Make the generation of `step` the newest, once the parts of all `arms` are written; drop all but two.

    Raises OSError: bytes needed and free.
    """
    temporary, final = _temporary(folder, step), folder / f"step_{step:08d}"
    parts = read_parts(folder, step, arms)
    assert parts is not None
    digests = {arm: part.digest for arm, part in zip(arms, parts, strict=True)}
    head = {"format": FORMAT, "step": step, "epoch": epoch, "sums": dict(sums), "digests": digests}
    try:
        write_durably(temporary / "state.json", json.dumps(head, indent=1).encode())
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for arm in arms:
        (temporary / f"{arm}.part").unlink()
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    fsync_folder(folder)
    for old in _generations(folder)[:-KEPT]:
        shutil.rmtree(old)


def _temporary(folder: Path, step: int) -> Path:
    return folder / f".step_{step:08d}.tmp"


def newest_step(folder: Path) -> int | None:
    """The step of the newest generation; None if there is none."""
    generations = _generations(folder)
    return int(generations[-1].name.removeprefix("step_")) if generations else None


def read_newest(folder: Path, own: Collection[str] | None = None) -> ResumeState | None:
    """The newest generation, digests checked, of all arms or of the `own`; None if there is none. A temporary folder is
    never one.

    Raises ValueError that names the damaged file and what to delete to continue from the generation before.
    """
    generations = _generations(folder)
    if not generations:
        return None
    newest = generations[-1]
    remedy = f"delete {newest} to continue from the state before it"
    try:
        head = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        found = head.get("format")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{newest / 'state.json'}: not readable ({error}); {remedy}") from None
    if found != FORMAT:
        raise ValueError(f"{newest / 'state.json'}: expected format {FORMAT}, found {found}; {remedy}")
    arms = {}
    for arm, expected in ((arm, digest) for arm, digest in head["digests"].items() if own is None or arm in own):
        path = newest / f"{arm}.safetensors"
        data = path.read_bytes() if path.is_file() else b""
        if _digest(data) != expected:
            raise ValueError(f"{path}: damaged: its digest should be {expected}, found {_digest(data)}; {remedy}")
        arms[arm] = load(data)
    return ResumeState(head["step"], head["epoch"], arms, head["sums"])


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


def _generations(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()
