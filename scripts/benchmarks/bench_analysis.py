"""Benchmark the analysis: CKA and RSA against forms with n x n matrices, wide features, four arms, weights of a run.

    python scripts/benchmarks/bench_analysis.py [--seconds 120]      (5 GiB of memory, 1.2 GiB of disk)

* CKA and RSA of n = 10 000, d = 512, against the definitions and against ckatorch and scipy. All must agree to 1e-9.
* Memory: n = 50 000, d = 2 048, peak memory beyond the features. The baseline is the memory of the features.
* Four arms in one pass, networks included, against one pass for each of three pairs.
* weight_gap.py against reading the same files, once from the disk (as for a run larger than the memory) and once from
  the page cache: wall-clock seconds.

Each form runs in a separate process, on one thread except weight_gap.py. Times are CPU seconds unless stated otherwise.
n images, D features of an arm.
"""

import contextlib
import io
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rows import NAN, Case, Options, Row, fresh, in_turn, peak_mib, row, run
from torch import Tensor

from coupled.analysis import weight_gap
from coupled.analysis.representations.embeddings import BATCH, Embedder
from coupled.analysis.representations.pair_scores import Score, scores
from coupled.analysis.run import Run, open_run
from coupled.config.load import resolve
from coupled.config.metric_registry import find_pair_metrics
from coupled.config.registry import load_dataset
from coupled.models.network import build_network, shared_tensors
from coupled.storage.run_description import write_run_json
from coupled.stream.seeds import torch_rng

METRICS = {metric.name: metric for metric in find_pair_metrics(["cka", "rsa"])}
ARMS = {"cl": "dcl", "nscl": "nscl", "scl": "supcon", "ce": "cross_entropy"}


def features(images: int, width: int) -> tuple[Tensor, Tensor]:
    """Return features [n, D] of two arms in float32: not negative, as of a network with ReLU, and in part shared."""
    with torch_rng(0, "bench_metrics"):
        x_nD, y_nD = torch.randn(images, width), torch.randn(images, width)
    return x_nD.relu_(), y_nD.add_(x_nD).relu_()  # in place, so that they do not raise the peak memory


def ours(x_nD: Tensor, y_nD: Tensor) -> tuple[float, float]:
    """Compute batch by batch, as `coupled alignment` does."""
    batches = ({("x", "h"): x, ("y", "h"): y} for x, y in zip(x_nD.split(BATCH), y_nD.split(BATCH), strict=True))
    cka, rsa = scores(batches, [Score("x", "y", "h", name) for name in METRICS], METRICS).values()
    return cka, rsa


def definition(x_nD: Tensor, y_nD: Tensor) -> tuple[float, float]:
    """Compute by definition: centred Gram matrices; Pearson correlation of the upper triangles of dissimilarities."""
    x_nD, y_nD = x_nD.double(), y_nD.double()
    grams = []
    for rows_nD in (x_nD, y_nD):
        gram_nn = rows_nD @ rows_nD.T
        mean_n = gram_nn.mean(0)
        grams.append(gram_nn - mean_n - mean_n[:, None] + mean_n.mean())
    cka = (grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm())
    del grams, gram_nn
    upper_nn = torch.ones(len(x_nD), len(x_nD), dtype=torch.bool).triu(1)
    units = [torch.nn.functional.normalize(rows_nD) for rows_nD in (x_nD, y_nD)]
    rsa = torch.corrcoef(torch.stack([(1 - unit_nD @ unit_nD.T)[upper_nn] for unit_nD in units]))[0, 1]
    return float(cka), float(rsa)


def libraries(x_nD: Tensor, y_nD: Tensor) -> tuple[float, float]:
    """Compute with ckatorch and scipy."""
    from scipy.spatial.distance import pdist
    from scipy.stats import pearsonr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ckatorch.core import cka_base
    cka = cka_base(x_nD, y_nD, kernel="linear")
    rsa = pearsonr(*(pdist(rows_nD.double().numpy(), "cosine") for rows_nD in (x_nD, y_nD)))
    return float(cka), float(rsa.statistic)


FORMS = {"ours": ours, "definition": definition, "libraries": libraries}


def measured(form: str, images: int, width: int, repeats: int) -> tuple[float, float, tuple[float, float]]:
    """Return CPU seconds on one thread, peak MiB beyond the features, and CKA and RSA by one form."""
    torch.set_num_threads(1)
    FORMS[form](*features(min(images, 1000), width))  # imports, first use of the libraries
    x_nD, y_nD = features(images, width)
    before = peak_mib()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        values = FORMS[form](x_nD, y_nD)
        seconds.append(time.process_time() - start)
    return sorted(seconds)[repeats // 2], peak_mib() - before, values


def metrics_row(name: str, form: str, options: Options) -> Row:
    """Measure ours against one form with n x n matrices."""
    size = (200, 16) if options.tiny else (10_000, 512)
    own, own_mib, values = fresh(__file__, measured, "ours", *size, 3, options=options)[0]
    other, other_mib, expected = fresh(__file__, measured, form, *size, 1, options=options)[0]
    if max(abs(a - b) for a, b in zip(values, expected, strict=True)) > 1e-9:
        raise RuntimeError(f"{form}: CKA and RSA {expected} and ours {values} must agree")
    return row(name, own, other, 100, "CPU s", own_mib, other_mib)


def wide_row(name: str, options: Options) -> Row:
    """Measure time and memory of the widest features."""
    images, width = (300, 64) if options.tiny else (50_000, 2048)
    seconds, beyond, _ = fresh(__file__, measured, "ours", images, width, 1, options=options)[0]
    return row(name, seconds, NAN, "under 2 GB", "CPU s", beyond, 2 * images * width * 4 / 2**20)


def four_arms(tiny: bool) -> list[float]:
    """Return CPU seconds of one pass for all arms, and of one pass for each pair."""
    torch.set_num_threads(1)
    with stored_run("resnet18", 0.0625 if tiny else 0.25, (0,)) as stored:
        images = load_dataset({"name": "digits", "image_size": 16}, "train", 0)
        embedder = Embedder(stored, torch.device("cpu"))
        chosen_N = torch.arange(64 if tiny else 512)

        def one_pass(arms: list[str]) -> None:
            wanted = [Score("cl", arm, layer, name) for arm in arms for layer in "hz" for name in METRICS]
            scores(embedder.outputs(images, chosen_N, ["cl", *arms], 0), wanted, METRICS)

        others = list(ARMS)[1:]

        def pass_a_pair() -> None:
            for arm in others:
                one_pass([arm])

        return in_turn(lambda: one_pass(others), pass_a_pair, repeats=1, cpu_seconds=True)


def weights(cold: bool, tiny: bool) -> list[float]:
    """Return seconds of weight_gap.py and of reading the files; `cold`: they are not in the page cache (Linux)."""
    with stored_run("resnet18" if tiny else "resnet50", 0.0625 if tiny else 1.0, (0, 1, 2)) as stored:
        files = sorted(stored.snapshots.folder.rglob("*.safetensors"))
        buffer = bytearray(2**22)

        def read() -> None:
            for path in files:
                with path.open("rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass

        def compare() -> None:
            with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as output:
                weight_gap.main(["--run-dir", str(stored.path), "--output", output])

        def timed(call: Callable[[], None]) -> float:
            for path in files if cold else ():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.monotonic()
            call()
            return time.monotonic() - start

        turns = [(timed(compare), timed(read)) for _ in range(1 if tiny else 3)]
        return [sorted(side)[len(turns) // 2] for side in zip(*turns, strict=True)]


@contextlib.contextmanager
def stored_run(encoder: str, width: float, epochs: tuple[int, ...]) -> Iterator[Run]:
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
                run.snapshots.write(arm, epoch, drifted(tensors, 1e-3 * epoch * place), step=epoch, metadata={})
        yield run


def drifted(tensors: dict[str, Tensor], step: float) -> dict[str, Tensor]:
    """Return tensors that are `step` away from these."""
    return {name: t + step * t.roll(1, 0) if t.dim() and t.is_floating_point() else t for name, t in tensors.items()}


def in_process(name: str, function: Callable[..., list[float]], goal: float, options: Options, *cold: bool) -> Row:
    """Return the row of a function that returns the seconds of both sides."""
    (ours, baseline), _ = fresh(__file__, function, *cold, options.tiny, options=options)
    return row(name, ours, baseline, goal, "s" if cold else "CPU s")


def cases(options: Options) -> list[Case]:
    """List the rows, the most important first."""
    definition, libraries = (
        f"CKA and RSA, n = 10 000, d = 512, against {what}" for what in ("the n x n definitions", "ckatorch and scipy")
    )
    gap = "weight gap, 12 snapshots of a ResNet-50, from the {}, against reading"
    disk, cached = (gap.format(where) for where in ("disk", "page cache"))
    wide = "CKA and RSA, n = 50 000, d = 2 048, memory beyond the features"
    arms = "four arms in one pass, against a pass for each pair"
    return [
        Case(disk, partial(in_process, disk, weights, 0.5, options, True)),
        Case(cached, partial(in_process, cached, weights, 0.5, options, False)),
        Case(arms, partial(in_process, arms, four_arms, 1.5, options)),
        Case(definition, partial(metrics_row, definition, "definition", options)),
        Case(wide, partial(wide_row, wide, options)),
        *([] if options.tiny else [Case(libraries, partial(metrics_row, libraries, "libraries", options))]),
    ]


if __name__ == "__main__":
    run(cases, __doc__ or "", {"measured": measured, "four_arms": four_arms, "weights": weights})
