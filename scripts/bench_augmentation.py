"""Measure our augmentation kernels against torchvision's per-image PIL pipeline; see `augmentation_rows`.

    python scripts/bench_augmentation.py
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from coupled.stream.augment import augment
from coupled.stream.view_plan import ViewRecipe, view_plan

Row = dict[str, Any]  # name, ours, baseline, ratio, goal, unit, ours_peak_mib, baseline_peak_mib

SIZE, IMAGES, VIEWS, REPEATS = 32, 512, 2, 7
RECIPE = ViewRecipe(
    crop_scale=(0.08, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    flip=0.5,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grayscale=0.2,
    blur=0.0,
    blur_sigma=(0.1, 2.0),
)


def augmentation_rows() -> list[Row]:
    """Views per second on one thread, the median of alternating repeats, and the peak memory of each way.

    Ours includes drawing and decoding the plan. The peak is the growth of the resident set's maximum (ru_maxrss) while
    all views are made, in a fresh process for each way, over what was resident before.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ways = {"ours": _ours(), "baseline": _baseline()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):
        for name, make_views in ways.items():
            start = time.perf_counter()
            make_views()
            if repeat:  # the first round only warms up
                seconds[name].append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    ours, baseline = (VIEWS * IMAGES / float(np.median(seconds[name])) for name in ways)
    return [
        {
            "name": f"augmentation, {SIZE} px, one thread, against torchvision on PIL images",
            "ours": ours,
            "baseline": baseline,
            "ratio": ours / baseline,
            "goal": 10.0,
            "unit": "views/s",
            "ours_peak_mib": _peak_mib("ours"),
            "baseline_peak_mib": _peak_mib("baseline"),
        }
    ]


def _images() -> Tensor:
    """Smooth random colours, as uint8 [B, 3, S, S]."""
    coarse = np.random.Generator(np.random.Philox(0)).random((IMAGES, 3, 8, 8), dtype=np.float32)
    fine = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=(SIZE, SIZE), mode="bilinear")
    return (fine * 255).to(torch.uint8)


def _ours() -> Callable[[], Tensor]:
    images = _images()
    everyone = np.arange(IMAGES)
    return lambda: augment(images, view_plan(0, 0, IMAGES, RECIPE, VIEWS)[everyone], SIZE)


def _baseline() -> Callable[[], Tensor]:
    pictures = [to_pil_image(image) for image in _images()]
    jitter = transforms.ColorJitter(RECIPE.brightness, RECIPE.contrast, RECIPE.saturation, RECIPE.hue)
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, RECIPE.crop_scale, RECIPE.crop_ratio),
            transforms.RandomHorizontalFlip(RECIPE.flip),
            transforms.RandomApply([jitter], RECIPE.jitter),
            transforms.RandomGrayscale(RECIPE.grayscale),
            transforms.ToTensor(),
        ]
    )
    return lambda: torch.stack([torch.stack([pipeline(picture) for picture in pictures]) for _ in range(VIEWS)])


def _peak_mib(way: str) -> float:
    command = [sys.executable, str(Path(__file__).resolve()), "--peak", way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _print_peak(way: str) -> None:
    torch.set_num_threads(1)
    make_views = {"ours": _ours, "baseline": _baseline}[way]()
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    make_views()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - pages * resource.getpagesize() / 2**20)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        _print_peak(sys.argv[2])
    else:
        print(json.dumps(augmentation_rows(), indent=2))
