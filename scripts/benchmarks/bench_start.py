"""Benchmark the start of a program against the start of Python with torch.

python scripts/benchmarks/bench_start.py
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from coupled.monitoring.terminal import safe_streams

REPEATS = 3
TRAIN = Path(__file__).parents[2] / "coupled/train.py"
CONFIG = Path(__file__).parents[2] / "configs/demo.yaml"


def seconds(*command: str | Path) -> float:
    """Return the median time of a command in seconds."""
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *map(str, command)], capture_output=True, check=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def start_rows() -> list[dict[str, Any]]:
    """Measure `--help`, which does not import torch (goal: under 0.5 s), and a run up to the end of its first step."""
    bare = seconds("-c", "import torch, torchvision, timm")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        first = seconds(TRAIN, "--config", CONFIG, "--run-dir", run, "--overwrite", "--max-steps", "1")
    found = (
        ("train.py --help, against importing torch, torchvision and timm", seconds(TRAIN, "--help"), "under 0.5 s"),
        ("train.py to the end of the first step of 4 arms, against the same imports", first, "-"),
    )
    rows = []
    for name, ours, goal in found:
        numbers = {"ours": ours, "baseline": bare, "ratio": bare / ours, "goal": goal, "unit": "s"}
        rows.append({"name": name, **numbers, "ours_peak_mib": 0.0, "baseline_peak_mib": 0.0})
    return rows


if __name__ == "__main__":
    safe_streams()
    for each in start_rows():
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in each.items()))
