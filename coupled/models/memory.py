"""Forecast the memory that a run needs, find how much is free, and say so in one line when it was not enough."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from coupled.config.errors import is_out_of_memory
from coupled.models.probe import Probe
from coupled.objectives._blocks import WHOLE
from coupled.parallel.failure_broadcast import RunError
from coupled.parallel.host_memory import reusable_bytes

MIB = 2**20
MOMENTS = {"lars": 1, "sgd": 1, "adamw": 2, "rmsprop": 2}  # optimizer state, as a multiple of the trained weights
# Peak of both passes, as a multiple of the saved activations. CPU: 1.3 to 2.3 measured, because freed blocks of the
# heap do not fit the next tensors. GPU: an estimate, not measured; the gradients of a few layers are added
BACKWARD = {"cpu": 1.7, "cuda": 1.3}
PAIR_BYTES = 48  # per pair of anchor and row: scores, masks and their gradients
CHECKPOINTS = 2  # in main memory at once: one is being written, and one waits (`checkpoint_writer.MAX_PENDING`)
BATCHES = 2  # one is in use, and the next one is made
NEAR, CLEARLY = 0.8, 1.25  # needed, as a multiple of the free memory: from here on warned of, and refused
LESS = (
    "use a smaller batch.size, dataset.image_size, encoder.width_multiplier or encoder.name, precision=bfloat16,"
    " activation_checkpointing=true, or more processes with parallel.arm_groups"
)
MEMINFO, OWN_CGROUPS, CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class Forecast(NamedTuple):
    """Memory of one process, in bytes.

    `activations` of a step, `arms`: weights, gradients and optimizer state of the arms, and `more`: further memory
    expected at the peak. The first two are always needed at the same time.
    """

    activations: int
    arms: int
    more: int

    @property
    def certain(self) -> int:
        """Lower bound of the needed bytes."""
        return self.activations + self.arms

    @property
    def expected(self) -> int:
        """Expected bytes at the peak."""
        return self.certain + self.more


class ArmBytes(NamedTuple):
    """Bytes of an arm: of all its tensors, target network included, and of the weights that have a gradient."""

    tensors: int
    trained: int


def forecast(
    probe: Probe,
    arms: Sequence[ArmBytes],
    optimizer: str,
    *,
    images: int,
    images_at_once: int,
    batch: int,
    views: int,
    image_size: int,
    device: torch.device,
    local_views: int = 0,
    local_size: int = 0,
    keeps_copy: bool = False,
    workers: int = 0,
) -> Forecast:
    """Forecast the memory of a process that trains `arms` on `images` of a global `batch`.

    The network keeps the activations of `images_at_once` images. Each image has `views` views; a local view counts in
    proportion to its pixels. The arms take their steps one after the other. With `keeps_copy` a copy of all states
    stays on the device, to go back to. Besides all this, main memory has the shared initial network and the checkpoints
    that are being written. `workers` threads make batches ahead.
    """
    anchors = views * images
    states = sum(arm.tensors + MOMENTS[optimizer] * arm.trained for arm in arms)
    pixels = images * (views * image_size**2 + local_views * local_size**2)
    activations = probe.saved + pixels * images_at_once // images * probe.saved_an_image // image_size**2
    pairs = min(anchors * views * batch, WHOLE)  # more pairs are computed in blocks
    more = (BACKWARD[device.type] - 1) * activations + PAIR_BYTES * pairs
    more += pixels * 3 * 4 * (BATCHES + 2 * workers) + keeps_copy * states
    copied = 0 if device.type == "cuda" else probe.weights + CHECKPOINTS * states
    return Forecast(activations, states + sum(arm.trained for arm in arms), int(more) + copied)


def memory_line(need: Forecast, free: int | None, views: int, arms: int, device: torch.device) -> str:
    """Return a line on needed and free memory, a warning if the free memory may not suffice.

    `views` is the number of all views of this process's batch. Raises ValueError if clearly more is needed than free.
    """
    text = f"a step needs about {need.expected / MIB:,.0f} MiB of memory"
    if free is None:
        return text
    text += f" of {free / MIB:,.0f} MiB free on the {_where(device)}"
    if need.expected <= NEAR * free:
        return text
    text += (
        f": {need.activations / MIB:,.0f} MiB are activations of {views} views, {need.arms / MIB:,.0f} MiB"
        f" weights, gradients and moments of {arms} arms; {LESS}"
    )
    if need.certain > free or need.expected > CLEARLY * free:
        raise ValueError(f"{'batch.size' if need.activations > need.arms else 'encoder.name'}: {text}")
    return f"warning: {text}"


@contextmanager
def memory_errors(need: Forecast | None = None) -> Iterator[None]:
    """Turn an error of an allocation into a `RunError` in one line: what was needed, what is free, which keys to lower.

    `need` is the forecast of a run that is being trained. The exit status is 1, as of other failed runs.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        text = str(error)
        on_gpu = torch.cuda.is_available() and ("CUDA" in text or "CUBLAS" in text)
        device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        tried = re.search(r"tried to allocate ([\d.]+ [a-z]+)", text, re.IGNORECASE)
        free = free_memory(device)
        said = [f"an allocation of {tried[1]} failed" if tried else "an allocation failed"]
        said += [f"a step needs about {need.expected / MIB:,.0f} MiB"] if need else []
        said += [] if free is None else [f"{free / MIB:,.0f} MiB are free on the {_where(device)}"]
        saved = (
            ". The run is saved up to its newest checkpoint: --resume continues it, also with other"
            " parallel.arm_groups; the other keys need a new run"
        )
        raise RunError(f"out of memory: {', '.join(said)}; {LESS}{saved if need else ''}") from error


def _where(device: torch.device) -> str:
    return "GPU" if device.type == "cuda" else "machine"


def free_memory(device: torch.device) -> int | None:
    """Return the bytes of device memory available to this process; None if unknown.

    Processes on the same machine are assumed to share the free memory equally. Memory that an earlier run in this
    process has freed and that the process keeps for reuse is free, too.
    """
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] // -(-beside // torch.cuda.device_count()) + kept
    known = [*_free_on_machine(), *_free_in_cgroups()]
    return min(known) // beside + reusable_bytes() if known else None


def _free_on_machine() -> Iterator[int]:
    if MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            yield sum(1024 * int(lines[key].split()[0]) for key in ("MemAvailable", "SwapFree") if key in lines)


def _free_in_cgroups() -> Iterator[int]:
    """Yield the free bytes under the limit of each cgroup of this process; inactive file pages count as free."""
    names = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}
    for line in OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.is_file() else ():
        _, controller, path = line.split(":", 2)
        if controller not in names:
            continue
        top = CGROUPS / controller
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            limit, used = (folder / name for name in names[controller])
            if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
                stat = (folder / "memory.stat").read_text().split()
                files = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0
                yield int(text) - int(used.read_text()) + files
            if folder == top:
                break
