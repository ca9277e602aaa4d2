"""Forecast the memory that a run needs, and find how much is free."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from coupled.models.probe import Probe

MIB = 2**20
MOMENTS = {"lars": 1, "sgd": 1, "adamw": 2}  # optimizer state, as a multiple of the weights
BACKWARD = 1.7  # peak of both passes, as a multiple of the saved activations; 1.3 to 2.3 measured on a CPU
PAIR_BYTES = 48  # per pair of anchor and row: scores, masks and their gradients
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


def forecast(
    probe: Probe,
    weights: Sequence[int],
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
) -> Forecast:
    """Forecast the memory of a process that trains arms with `weights` bytes each on `images` of a global `batch`.

    The network keeps the activations of `images_at_once`. Each image has `views` views; a local view counts in
    proportion to its pixels. The arms take their steps one after the other. Besides weights, gradients and optimizer
    state, main memory has the shared initial network, and a copy of all tensors while a checkpoint is written.
    """
    moments, own, anchors = MOMENTS[optimizer], sum(weights), views * images
    pixels = images * (views * image_size**2 + local_views * local_size**2)
    activations = probe.saved + pixels * images_at_once // images * probe.saved_an_image // image_size**2
    more = (BACKWARD - 1) * activations + PAIR_BYTES * anchors * views * batch + pixels * 3 * 4
    copied = 0 if device.type == "cuda" else probe.weights + (1 + moments) * own
    return Forecast(activations, (2 + moments) * own, int(more) + copied)


def memory_line(need: Forecast, free: int | None, views: int, arms: int, device: torch.device) -> str:
    """Return a line on needed and free memory, a warning if the free memory may not suffice.

    `views` is the number of all views of this process's batch. Raises ValueError if less than the lower bound is free.
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
    """Return the bytes of device memory available to this process; None if unknown.

    Processes on the same machine are assumed to share the free memory equally.
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
