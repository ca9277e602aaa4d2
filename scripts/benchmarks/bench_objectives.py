"""Benchmark the objectives: forward and backward against cosine similarity by broadcasting to M x M x P, and against
pytorch-metric-learning if it has the loss.

    python scripts/benchmarks/bench_objectives.py      (about two minutes; 3.5 GiB of memory for the broadcast form)

All forms get the same 512 images (two views, 1 024 anchors, P = 128) in the same run, and must agree.
M rows, P projection width.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from torch import Tensor

from coupled.monitoring.terminal import safe_streams
from coupled.objectives import Inputs, Loss, dcl, nscl, nt_xent, supcon
from coupled.stream.seeds import torch_rng

OURS: dict[str, Callable[..., Loss]] = {
    "nt_xent": nt_xent.nt_xent,
    "dcl": dcl.dcl,
    "nscl": nscl.nscl,
    "supcon": supcon.supcon,
}
TEMPERATURE, CLASSES, WIDTH = 0.5, 10, 128


def batch(images: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Return projections [2, images, 128] that require a gradient, and labels."""
    with torch_rng(0, "bench_objectives"):
        random = torch.randn(2, images, WIDTH)
    return F.normalize(random.to(device), dim=-1).requires_grad_(), torch.arange(images, device=device) % CLASSES


def ours(name: str, images: int, device: str = "cpu") -> Tensor:
    """Run forward and backward of an objective of this package."""
    projections, labels = batch(images, device)
    inputs = Inputs({"projection": projections}, {"projection": projections}, labels, labels)
    loss = OURS[name](inputs, temperature=TEMPERATURE).mean
    loss.backward()
    return loss.detach()


def broadcast(name: str, images: int, device: str = "cpu") -> Tensor:
    """Run forward and backward of the same formula with cosine similarity broadcast to M x M x P."""
    projections, labels = batch(images, device)
    images_M = torch.arange(images, device=device).repeat(2)
    rows_MP, labels_M = projections.flatten(0, 1), labels.repeat(2)
    itself, image = torch.eye(2 * images, device=device), (images_M[:, None] == images_M).float()
    klass = (labels_M[:, None] == labels_M).float()
    positives = (klass if name == "supcon" else image) - itself
    denominator = {"nt_xent": 1 - itself, "dcl": 1 - image, "nscl": 1 - klass, "supcon": 1 - itself}[name]
    similarity_MM = F.cosine_similarity(rows_MP[:, None], rows_MP[None], dim=-1) / TEMPERATURE
    log_probability_MM = similarity_MM - (similarity_MM.exp() * denominator).sum(1, keepdim=True).log()
    loss = -((log_probability_MM * positives).sum(1) / positives.sum(1)).mean()
    loss.backward()
    return loss.detach()


def library(name: str, images: int) -> Tensor:
    """Run forward and backward of pytorch-metric-learning's loss."""
    projections, labels = batch(images)
    loss = LIBRARY[name](TEMPERATURE)(
        projections.flatten(0, 1), (labels if name == "supcon" else torch.arange(images)).repeat(2)
    )
    loss.backward()
    return loss.detach()


LIBRARY = {"nt_xent": NTXentLoss, "supcon": SupConLoss}
FORMS = {"ours": ours, "broadcast": broadcast, "library": library}
# baselines: form, name in the table, images, goal, repeats
BASELINES = {name: [("broadcast", "the broadcast form", 512, 100, 2)] for name in OURS}
# the library's NT-Xent builds a matrix of positive by negative pairs: 4 GiB at 512 images
BASELINES["nt_xent"].append(("library", "pytorch-metric-learning", 128, 1, 5))
BASELINES["supcon"].append(("library", "pytorch-metric-learning", 512, 1, 11))


def timed(form: str, name: str, images: int, repeats: int) -> tuple[float, Tensor]:
    """Return median CPU seconds of one call on one thread, which a busy machine affects least, and the loss."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        loss = FORMS[form](name, images)
        seconds.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return statistics.median(seconds), loss


def process_peak_mib(form: str, name: str, images: int) -> float:
    """Return the peak resident memory in MiB of a fresh process that runs one form once."""
    program = [sys.executable, __file__, form, name, str(images)]
    # on Linux a child inherits the peak memory of the process that forks it; the shell in between has a small peak
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    done = subprocess.run([*shell, *program], check=True, capture_output=True, text=True)
    return float(done.stdout) / (2**20 if sys.platform == "darwin" else 2**10)


def objective_rows() -> list[dict]:
    """Measure one row per objective and baseline: CPU seconds, and peak MiB above that of 2 images, of both forms."""
    idle_mib = process_peak_mib("ours", "nt_xent", 2)
    rows = []
    for name, baselines in BASELINES.items():
        for form, against, images, goal, repeats in baselines:
            seconds, loss = timed("ours", name, images, repeats=21)
            baseline_seconds, baseline_loss = timed(form, name, images, repeats)
            torch.testing.assert_close(loss, baseline_loss, rtol=1e-5, atol=0)
            rows.append(
                {
                    "name": f"objective {name}, B={images}, forward+backward, against {against}",
                    "ours": seconds,
                    "baseline": baseline_seconds,
                    "ratio": baseline_seconds / seconds,
                    "goal": goal,
                    "unit": "CPU s",
                    "ours_peak_mib": process_peak_mib("ours", name, images) - idle_mib,
                    "baseline_peak_mib": process_peak_mib(form, name, images) - idle_mib,
                }
            )
    return rows


if __name__ == "__main__":
    safe_streams()
    if len(sys.argv) == 4:  # started by process_peak_mib
        FORMS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    else:
        for row in objective_rows():
            values = (f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items())
            print("  ".join(values))
