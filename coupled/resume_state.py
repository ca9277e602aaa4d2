"""Resume states: what exact continuation needs, one folder a generation, the two newest kept.

resume/step_00000120/ holds state.json (format, step, epoch, sums of the epoch begun, digests) and one safetensors file
an arm: the tensors of its network under "network/" and of its optimizer under "optimizer/". Order, views and whatever a
network draws itself are functions of seed and step and need no state. A generation is written in a temporary folder,
fsynced and renamed: it is whole or absent. Nothing is pickled.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from coupled.durably import fsync_folder, write_durably

FORMAT = "coupled.resume.1"
KEPT = 2


@dataclass(frozen=True)
class ResumeState:
    """Steps and whole epochs done, every arm's tensors, and its sums over the epoch begun, whatever they count."""

    step: int
    epoch: int
    arms: dict[str, dict[str, Tensor]]
    sums: dict[str, list[float]] = field(default_factory=dict)


def write(folder: Path, state: ResumeState) -> None:
    """Write one generation into `folder` and drop all but the two newest. Raises OSError: bytes needed and free."""
    begin(folder)
    digests = {arm: write_arm(folder, state.step, arm, tensors) for arm, tensors in state.arms.items()}
    commit(folder, state.step, state.epoch, digests, state.sums)


def begin(folder: Path) -> None:
    """Clear away what a crash left. With several ranks one begins, then the owners write, then the first commits."""
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover)


def write_arm(folder: Path, step: int, arm: str, tensors: Mapping[str, Tensor]) -> str:
    """Write the tensors of one arm into the generation that is being made; the digest of the file.

    Raises OSError: bytes needed and free; on a full disk the generation's part would be in the way, so it goes.
    """
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    try:
        write_durably(_temporary(folder, step) / f"{arm}.safetensors", data)
    except OSError:
        shutil.rmtree(_temporary(folder, step), ignore_errors=True)
        raise
    return _digest(data)


def commit(
    folder: Path, step: int, epoch: int, digests: Mapping[str, str], sums: Mapping[str, list[float]] | None = None
) -> None:
    """Make the generation of `step` the newest, once the files of all arms in `digests` are written."""
    temporary, final = _temporary(folder, step), folder / f"step_{step:08d}"
    head = {"format": FORMAT, "step": step, "epoch": epoch, "sums": dict(sums or {}), "digests": dict(digests)}
    write_durably(temporary / "state.json", json.dumps(head, indent=1).encode())
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    fsync_folder(folder)
    for old in _generations(folder)[:-KEPT]:
        shutil.rmtree(old)


def _temporary(folder: Path, step: int) -> Path:
    return folder / f".step_{step:08d}.tmp"


def read_newest(folder: Path) -> ResumeState | None:
    """The newest generation, digests checked; None if there is none. A temporary folder is never one.

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
    for arm, expected in head["digests"].items():
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
