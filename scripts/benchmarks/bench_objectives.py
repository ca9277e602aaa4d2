"""Benchmark the objectives: against their own matrix products at B = 1 024 to 8 192, against cosine similarity by
broadcasting to M x M x P, and against pytorch-metric-learning if it has the loss.

    python scripts/benchmarks/bench_objectives.py [--device cuda] [--seconds 120]

Two views, P = 128. The broadcast form needs 3.5 GiB of memory at 512 images. All forms must agree.
M rows, P projection width.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from rows import Case, Options, Row, fresh, in_turn, row, run
from torch import Tensor

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
SIZES = (1024, 2048, 4096, 8192)


def peak_of(form: str, name: str, images: int) -> None:
    """Run one form once, in a process whose peak memory is read afterwards."""
    torch.set_num_threads(1)
    FORMS[form](name, images)


def against_row(title: str, form: str, name: str, images: int, goal: float, options: Options) -> Row:
    """Measure CPU seconds on one thread, and peak MiB above that of 2 images, of both forms. Both must agree."""
    torch.set_num_threads(1)
    torch.testing.assert_close(ours(name, images), FORMS[form](name, images), rtol=1e-5, atol=0)
    own = in_turn(lambda: ours(name, images), repeats=9, cpu_seconds=True)[0]
    other = in_turn(lambda: FORMS[form](name, images), repeats=1, cpu_seconds=True)[0]
    idle, *peaks = (
        fresh(__file__, peak_of, *arguments, options=options)[1]
        for arguments in (("ours", "nt_xent", 2), ("ours", name, images), (form, name, images))
    )
    return row(title, own, other, goal, "CPU s", peaks[0] - idle, peaks[1] - idle)


def size_row(title: str, name: str, images: int, options: Options) -> Row:
    """Measure seconds and peak MiB of forward and backward, and the size of a matrix of all pairs of views."""
    device = options.device
    if options.gpu:
        torch.cuda.reset_peak_memory_stats()
    products = torch.randn(2 * images, WIDTH, device=device)  # the three matrix products of forward and backward

    def multiply() -> None:
        for first in range(0, 2 * images, 2048):
            matrix = products[first : first + 2048] @ products.T
            matrix @ products, matrix.T @ products[first : first + 2048]

    own, bare = in_turn(lambda: ours(name, images, device), multiply, repeats=2)
    if options.gpu:
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        idle, peak = (fresh(__file__, peak_of, "ours", name, n, options=options)[1] for n in (2, images))
        peak -= idle
    return row(title, own, bare, 0.5, "s", peak, note=f"a matrix of all pairs has {(2 * images) ** 2 / 2**18:.0f} MiB")


def cases(options: Options) -> list[Case]:
    """List the rows, the most important first."""
    sizes = (64,) if options.tiny else SIZES
    found = list[Case]()
    for images in sizes:
        title = f"objective nscl, B = {images}, forward and backward on {options.device}, against its matrix products"
        found.append(Case(title, partial(size_row, title, "nscl", images, options)))
    baselines = [("broadcast", "the broadcast form", name, 512, 100) for name in ("nscl", "supcon")]
    # the library's NT-Xent builds a matrix of positive by negative pairs: 4 GiB at 512 images
    baselines += [("library", "pytorch-metric-learning", "nt_xent", 128, 1)]
    baselines += [("library", "pytorch-metric-learning", "supcon", 512, 1)]
    for form, against, name, images, goal in baselines:
        size = 16 if options.tiny else images
        title = f"objective {name}, B = {size}, forward and backward, against {against}"
        lacks = "measured on a CPU only" if options.gpu else ""
        found.append(Case(title, partial(against_row, title, form, name, size, goal, options), lacks))
    return found


if __name__ == "__main__":
    run(cases, __doc__ or "", {"peak_of": peak_of})
