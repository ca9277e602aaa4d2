"""Benchmark four arms against four runs of one arm when decoding dominates: images on disk and a small network.

    python scripts/benchmarks/bench_pictures.py      (about two minutes)

128 JPEGs of 480 x 360 px with smooth random colours, read as `imagenet`, and a ResNet-18 with one sixteenth of the
channels at 32 px. Each run is a separate process; the time includes its start.
"""

import contextlib
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_coupling import ARMS, Row, coordinator, row
from PIL import Image

from coupled.monitoring.terminal import safe_streams

CLASSES, OF_A_CLASS, SIZE = 4, {"train": 32, "val": 1}, (480, 360)
EPOCHS = 3
SETTINGS: dict[str, Any] = {
    "epochs": EPOCHS,
    "batch": {"size": 64},
    "encoder": {"name": "resnet18", "width_multiplier": 0.0625},
}


def write_pictures(root: Path) -> None:
    """Write the images into ImageNet's folders. They are smooth, so the files are as large as those of photographs."""
    draws = np.random.Generator(np.random.Philox(key=0))
    for split, count in OF_A_CLASS.items():
        for klass in range(CLASSES):
            folder = root / split / f"class{klass}"
            folder.mkdir(parents=True)
            for number in range(count):
                coarse = Image.fromarray(draws.integers(0, 256, (36, 48, 3), dtype=np.uint8))
                coarse.resize(SIZE, Image.Resampling.BICUBIC).save(folder / f"{number:04d}.JPEG", quality=90)


def train(root: Path, names: list[str]) -> None:
    """Train all epochs of these arms in this process."""
    images = {"name": "imagenet", "root": str(root)}
    chosen = {name: ARMS[name] for name in names}
    quiet = contextlib.redirect_stdout(io.StringIO())
    with coordinator("cpu", dataset=images, arms=chosen, **SETTINGS) as coupled, quiet:
        coupled.train()


def seconds(root: Path, names: list[str]) -> float:
    """Return the seconds of a process that trains these arms."""
    began = time.perf_counter()
    subprocess.run([sys.executable, __file__, str(root), *names], check=True, capture_output=True)
    return time.perf_counter() - began


def picture_rows() -> list[Row]:
    """Return the row for `benchmark.py`."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pictures(root)
        ours = seconds(root, list(ARMS))
        alone = sum(seconds(root, [name]) for name in ARMS)
    return [row("run of 4 arms on images that are decoded, against four runs of one", ours, alone, 1.0)]


if __name__ == "__main__":
    safe_streams()
    if len(sys.argv) > 1:
        train(Path(sys.argv[1]), sys.argv[2:])
    else:
        for each in picture_rows():
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in each.items()))
