"""How much memory a run needs, forecast before it starts, and how much is free."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from coupled.models.probe import Probe

MIB = 2**20
MOMENTS = {"lars": 1, "sgd": 1, "adamw": 2}  # tensors of the size of the weights that an optimizer keeps
BACKWARD = 1.7  # times what the forward pass keeps is what both passes take; 1.3 to 2.3 measured on a CPU
PAIR_BYTES = 48  # of an anchor and a row: scores, masks and their gradients
MEMINFO, OWN_CGROUPS, CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class Forecast(NamedTuple):
    """Bytes of one process: of the step's activations, of the arms' weights with all that has their size, and of what
    else is expected at the peak. The first two are needed at once whatever happens.
    """

    activations: int
    arms: int
    more: int

    @property
    def certain(self) -> int:
        """Less than this cannot be enough."""
        return self.activations + self.arms

    @property
    def expected(self) -> int:
        """Bytes at the peak, as far as can be said beforehand."""
        return self.certain + self.more


def forecast(
    probe: Probe,
    weights: Sequence[int],
    optimizer: str,
    *,
    images: int,
    batch: int,
    views: int,
    image_size: int,
    device: torch.device,
    local_views: int = 0,
    local_size: int = 0,
) -> Forecast:
    """What a process needs that trains arms of so many bytes of `weights` on `images` of a global `batch`, each with so
    many `views`; a local view counts as its share of a view's pixels.

    The arms take their step one after the other. Beside weights, gradients and moments main memory holds the network
    that all arms start from, and a copy of all tensors while it is written.
    """
    moments, own, anchors = MOMENTS[optimizer], sum(weights), views * images
    pixels = images * (views * image_size**2 + local_views * local_size**2)
    activations = probe.saved + pixels * probe.saved_an_image // image_size**2
    more = (BACKWARD - 1) * activations + PAIR_BYTES * anchors * views * batch + pixels * 3 * 4
    copied = 0 if device.type == "cuda" else probe.weights + (1 + moments) * own
    return Forecast(activations, (2 + moments) * own, int(more) + copied)


def memory_line(need: Forecast, free: int | None, views: int, arms: int, device: torch.device) -> str:
    """A line on the memory that is needed and free, a warning if that may not suffice; `views` are all of a batch.

    Raises ValueError if what is certainly needed is not free.
    """
    text = f"a step needs about {need.expected / MIB:,.0f} MiB of memory"
    if free is None:
        return text
    text += f" of {free / MIB:,.0f} MiB free on the {'GPU' if device.type == 'cuda' else 'machine'}"
    if need.expected <= free:
        return text
    text += (
        f": {need.activations / MIB:,.0f} MiB are activations of {views} views, {need.arms / MIB:,.0f} MiB"
        f" weights, gradients and moments of {arms} arms; use a smaller batch.size, dataset.image_size,"
        " encoder.width_multiplier or encoder.name, or precision=bfloat16"
    )
    if need.certain > free:
        raise ValueError(f"{'batch.size' if need.activations > need.arms else 'encoder.name'}: {text}")
    return f"warning: {text}"


def free_memory(device: torch.device) -> int | None:
    """Bytes of the device's memory that this process can still get, in equal parts with those beside it; None where
    the system does not say.
    """
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // -(-beside // torch.cuda.device_count())
    known = [*_free_on_machine(), *_free_in_cgroups()]
    return min(known) // beside if known else None


def _free_on_machine() -> Iterator[int]:
    if MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            yield sum(1024 * int(lines[key].split()[0]) for key in ("MemAvailable", "SwapFree") if key in lines)


def _free_in_cgroups() -> Iterator[int]:
    """What is left of the limit of every control group that this process is in. Pages of files can be given back."""
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
