"""Benchmark on a GPU: the augmentation kernels against all cores of the CPU, and the objectives at B = 4 096 against
the broadcast form, with the peak memory of the device.

    python scripts/benchmarks/bench_gpu.py [--device cpu --images 64]      (these options only test the program)
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bench_augmentation import AUGMENTATION, SIZE, VIEWS, smooth_images
from bench_objectives import OURS, broadcast, ours
from torch import Tensor

from coupled.monitoring.terminal import safe_streams
from coupled.stream.augment import augment
from coupled.stream.view_plan import view_plan

Row = dict[str, Any]
IMAGES, REPEATS = 4096, 5


def timed(call: Callable[[], object], device: str) -> tuple[float, float]:
    """Return median wall-clock seconds of a call, synchronised, and the peak MiB allocated on the GPU (0 on a CPU)."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for number in range(REPEATS + 1):
        began = time.perf_counter()
        call()
        if on_gpu:
            torch.cuda.synchronize()
        if number:  # the first call is a warm-up
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0


def augmentation_row(device: str, images: int) -> Row:
    """Measure views per second, the plan included, on the device and on all cores of the CPU."""

    def make(images_B3HW: Tensor) -> Tensor:
        return augment(images_B3HW, view_plan(0, 0, images, AUGMENTATION)[np.arange(images)], SIZE)

    pixels_B3HW = smooth_images(images)
    placed_B3HW = pixels_B3HW.to(device)
    (here, here_mib), (there, _) = timed(lambda: make(placed_B3HW), device), timed(lambda: make(pixels_B3HW), "cpu")
    name = f"augmentation of {VIEWS} x {images} images, {SIZE} px, on {device}, against {torch.get_num_threads()} cores"
    return row(name, VIEWS * images / here, VIEWS * images / there, there / here, 1, "views/s", here_mib, 0.0)


def objective_row(name: str, device: str, images: int) -> Row:
    """Measure forward and backward of an objective against the broadcast form. Both must agree."""
    torch.testing.assert_close(ours(name, images, device), broadcast(name, images, device), rtol=1e-5, atol=0)
    own, own_mib = timed(lambda: ours(name, images, device), device)
    slow, slow_mib = timed(lambda: broadcast(name, images, device), device)
    title = f"objective {name}, B={images}, on {device}, forward+backward, against the broadcast form"
    return row(title, own, slow, slow / own, 100, "s", own_mib, slow_mib)


def row(
    name: str, own: float, baseline: float, ratio: float, goal: float, unit: str, own_mib: float, baseline_mib: float
) -> Row:
    """Return a row of the benchmark."""
    numbers = {"ours": own, "baseline": baseline, "ratio": ratio, "goal": goal, "unit": unit}
    return {"name": name, **numbers, "ours_peak_mib": own_mib, "baseline_peak_mib": baseline_mib}


def gpu_rows(device: str = "cuda", images: int = IMAGES) -> list[Row]:
    """Return the rows for `benchmark.py`; none without a GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        return []
    return [augmentation_row(device, images), *(objective_row(name, device, images) for name in OURS)]


if __name__ == "__main__":
    safe_streams()
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--images", type=int, default=IMAGES)
    for each in gpu_rows(**vars(parser.parse_args())):
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in each.items()), flush=True)
