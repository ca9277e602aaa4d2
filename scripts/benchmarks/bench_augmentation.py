"""Benchmark our augmentation kernels against torchvision's per-image PIL pipeline; see `augmentation_rows`.

python scripts/benchmarks/bench_augmentation.py
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from coupled.monitoring.terminal import safe_streams
from coupled.stream.augment import augment
from coupled.stream.recipe import Augmentation
from coupled.stream.seeds import random_uint32
from coupled.stream.view_plan import view_plan

Row = dict[str, Any]  # name, ours, baseline, ratio, goal, unit, ours_peak_mib, baseline_peak_mib

SIZE, IMAGES, VIEWS, REPEATS = 32, 512, 2, 7
AUGMENTATION = Augmentation(
    crop_scale=(0.08, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    hflip_prob=0.5,
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grayscale_prob=0.2,
    blur_prob=0.0,
    blur_sigma=(0.1, 2.0),
    views=VIEWS,
)


def smooth_images(images: int) -> Tensor:
    """Return images of smooth random colours, uint8 [B, 3, S, S]."""
    coarse = torch.from_numpy(random_uint32(0, "benchmark", shape=(images, 3, 8, 8)) * np.float32(255 * 2.0**-32))
    return torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear").to(torch.uint8)


def _ours(images: int) -> Callable[[], Tensor]:
    images_B3HW = smooth_images(images)
    everyone = np.arange(images)
    return lambda: augment(images_B3HW, view_plan(0, 0, images, AUGMENTATION)[everyone], SIZE)


def _baseline(images: int) -> Callable[[], Tensor]:
    pictures = [to_pil_image(image) for image in smooth_images(images)]
    jitter = transforms.ColorJitter(
        AUGMENTATION.brightness, AUGMENTATION.contrast, AUGMENTATION.saturation, AUGMENTATION.hue
    )
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, AUGMENTATION.crop_scale, AUGMENTATION.crop_ratio),
            transforms.RandomHorizontalFlip(AUGMENTATION.hflip_prob),
            transforms.RandomApply([jitter], AUGMENTATION.jitter_prob),
            transforms.RandomGrayscale(AUGMENTATION.grayscale_prob),
            transforms.ToTensor(),
        ]
    )
    return lambda: torch.stack([torch.stack([pipeline(picture) for picture in pictures]) for _ in range(VIEWS)])


WAYS = {"ours": _ours, "baseline": _baseline}


def augmentation_rows() -> list[Row]:
    """Measure views per CPU second on one thread, the median of alternating repeats, and the peak memory of both.

    Our time includes drawing and decoding the plan. CPU time excludes other programs on the machine. The peak memory
    (ru_maxrss) is the difference between a fresh process and one that makes the views of only 16 images.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    prepared = {name: prepare(IMAGES) for name, prepare in WAYS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(REPEATS):
        for name, make_views in prepared.items():
            make_views()  # warm-up, as the previous batch in training
            start = time.process_time()
            make_views()
            seconds[name].append(time.process_time() - start)
    torch.set_num_threads(threads)
    ours, baseline = (VIEWS * IMAGES / statistics.median(seconds[name]) for name in WAYS)
    ours_mib, baseline_mib = (_peak_mib(name, IMAGES) - _peak_mib(name, 16) for name in WAYS)
    return [
        {
            "name": f"augmentation of {VIEWS} x {IMAGES} images, {SIZE} px, against torchvision on PIL images",
            "ours": ours,
            "baseline": baseline,
            "ratio": ours / baseline,
            "goal": 10,
            "unit": "views/CPU s",
            "ours_peak_mib": ours_mib,
            "baseline_peak_mib": baseline_mib,
        }
    ]


def _peak_mib(way: str, images: int) -> float:
    """Return the peak resident memory in MiB of a fresh process that makes all views of `images` images once."""
    program = [sys.executable, __file__, way, str(images)]
    # on Linux a child inherits the peak memory of the process that forks it; the shell in between has a small peak
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    done = subprocess.run([*shell, *program], check=True, capture_output=True, text=True)
    return float(done.stdout) / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    safe_streams()
    if len(sys.argv) == 3:  # started by _peak_mib
        torch.set_num_threads(1)
        WAYS[sys.argv[1]](int(sys.argv[2]))()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    else:
        print(json.dumps(augmentation_rows(), indent=2))
