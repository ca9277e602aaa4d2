"""Benchmark the analysis at scale: wide features, many images, four arms, and the weights of a run.

    python scripts/benchmarks/bench_analysis.py      (about four minutes; 2 GiB of memory, 1.2 GiB of disk)

* Memory: n = 50 000, d = 2 048, peak memory in addition to the features. The baseline column is the memory of the
  features.
* Linear cost: the time for 20 000 images, divided by 4 times the time for 5 000 images (goal: 1).
* Four arms in one pass, networks included, against one pass for each of the three pairs.
* weight_gap.py against reading the same files, once from the disk (as for a run larger than the memory) and once from
  the page cache: wall-clock seconds, ratio of throughputs.

Each row runs in a separate process on one thread. Times are CPU seconds unless stated otherwise.
"""

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench_metrics import peak_mib
from torch import Tensor

from coupled.analysis import weight_gap
from coupled.analysis.representations.embeddings import BATCH, Embedder
from coupled.analysis.representations.pair_scores import Score, scores
from coupled.analysis.run import Run, open_run
from coupled.config.load import resolve
from coupled.config.metric_registry import find_pair_metrics
from coupled.config.registry import load_dataset
from coupled.models.network import build_network, shared_tensors
from coupled.monitoring.terminal import safe_streams
from coupled.storage.run_description import write_run_json

METRICS = {metric.name: metric for metric in find_pair_metrics(["cka", "rsa"])}
ARMS = {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"}


def feature_scores(images: int, features: int) -> float:
    """Measure CPU seconds of CKA and RSA of two arms. The features are not random; the cost is the same."""
    x_nD = torch.arange(images * features, dtype=torch.float32).mul_(0.7).sin_().view(images, features)
    y_nD = x_nD.roll(1, 0)
    start = time.process_time()
    batches = ({("x", "h"): x, ("y", "h"): y} for x, y in zip(x_nD.split(BATCH), y_nD.split(BATCH), strict=True))
    scores(batches, [Score("x", "y", "h", name) for name in METRICS], METRICS)
    return time.process_time() - start


def wide() -> dict[str, Any]:
    """Measure the memory of the widest features."""
    feature_scores(600, 64)
    before = peak_mib()
    seconds = feature_scores(50_000, 2048)
    features = 2 * 50_000 * 2048 * 4 / 2**20
    beyond = peak_mib() - before - features
    row = _row("CKA and RSA, n=50000, d=2048, memory beyond the features", seconds, float("nan"), float("nan"))
    return row | {"goal": "< 2 GB", "ours_peak_mib": beyond, "baseline_peak_mib": features}


def linear() -> dict[str, Any]:
    """Measure the time as a function of the number of images."""
    feature_scores(5_000, 512)
    few, many = (statistics.median(feature_scores(n, 512) for _ in range(3)) for n in (5_000, 20_000))
    return _row("CKA and RSA, n=20000 over 4 x n=5000, d=512", many, 4 * few, many / (4 * few)) | {"goal": 1}


def four_arms() -> dict[str, Any]:
    """Measure one pass for all arms against one pass for each pair."""
    with _run("resnet18", 0.25, (0,)) as run:
        images = load_dataset({"name": "digits", "image_size": 16}, "train", 0)
        embedder = Embedder(run, torch.device("cpu"))
        chosen_N = torch.arange(512)

        def one_pass(arms: list[str]) -> None:
            wanted = [Score("cl", arm, layer, name) for arm in arms for layer in "hz" for name in METRICS]
            scores(embedder.outputs(images, chosen_N, ["cl", *arms], 0), wanted, METRICS)

        others = list(ARMS)[1:]
        one_pass(others)
        start = time.process_time()
        one_pass(others)
        middle = time.process_time()
        for arm in others:
            one_pass([arm])
        ours, baseline = middle - start, time.process_time() - middle
    return _row("four arms in one pass, against a pass a pair", ours, baseline, baseline / ours) | {"goal": 1.5}


def weights_cold() -> dict[str, Any]:
    """Measure the weight gap of files that are not in the page cache."""
    return _weights("from the disk", _forget)


def weights_warm() -> dict[str, Any]:
    """Measure the weight gap of files that are in the page cache."""
    return _weights("from the page cache", lambda path: None)


def _weights(where: str, prepare: Callable[[Path], None]) -> dict[str, Any]:
    with _run("resnet50", 1.0, (0, 1, 2)) as run:
        files = sorted(run.snapshots.folder.rglob("*.safetensors"))
        for path in files:
            prepare(path)
        start = time.monotonic()
        buffer = bytearray(2**22)
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        baseline = time.monotonic() - start
        for path in files:
            prepare(path)
        start = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()):
            weight_gap.main(["--run-dir", str(run.path)])
        ours = time.monotonic() - start
    return _row(
        f"weight gap, {len(files)} snapshots of a ResNet-50, {where}, against reading", ours, baseline, baseline / ours
    ) | {
        "goal": 0.5,
        "unit": "s",
    }


def _forget(path: Path) -> None:
    """Drop a file from the page cache (Linux)."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def _run(encoder: str, width: float, epochs: tuple[int, ...]) -> Iterator[Run]:
    """Write a run of four arms whose weights drift without training."""
    content: dict[str, Any] = {
        "name": "bench",
        "device": "cpu",
        "dataset": {"name": "digits", "image_size": 16},
        "encoder": {"name": encoder, "width_multiplier": width},
        "arms": ARMS,
    }
    settings = resolve(content)
    tensors = shared_tensors(build_network(encoder=encoder, width_multiplier=width, image_size=16))
    with tempfile.TemporaryDirectory() as folder:
        described = {"name": "bench", "settings": settings.resolved(), "settings_sha256": settings.sha256()}
        write_run_json(Path(folder), {**described, "dataset": {}})
        run = open_run(folder)
        for epoch in epochs:
            for place, arm in enumerate(ARMS):
                run.snapshots.write(arm, epoch, _drifted(tensors, 1e-3 * epoch * place), step=epoch, metadata={})
        yield run


def _drifted(tensors: dict[str, Tensor], step: float) -> dict[str, Tensor]:
    return {name: t + step * t.roll(1, 0) if t.dim() and t.is_floating_point() else t for name, t in tensors.items()}


def _row(name: str, ours: float, baseline: float, ratio: float) -> dict[str, Any]:
    memory = {"ours_peak_mib": float("nan"), "baseline_peak_mib": float("nan")}
    return {"name": name, "ours": ours, "baseline": baseline, "ratio": ratio, "unit": "CPU s", **memory}


ROWS = {row.__name__: row for row in (wide, linear, four_arms, weights_cold, weights_warm)}


def analysis_rows() -> list[dict[str, Any]]:
    """Measure all rows, each in a separate process."""
    # on Linux a child inherits the peak memory of the process that forks it; the shell in between has a small peak
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, __file__]
    done = (subprocess.run([*command, name], check=True, stdout=subprocess.PIPE, text=True).stdout for name in ROWS)
    return [json.loads(text) for text in done]


if __name__ == "__main__":
    safe_streams()
    if len(sys.argv) == 2:  # started by analysis_rows
        torch.set_num_threads(1)
        print(json.dumps(ROWS[sys.argv[1]]()))
    else:
        for row in analysis_rows():
            print(
                "  ".join(
                    f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()
                )
            )
