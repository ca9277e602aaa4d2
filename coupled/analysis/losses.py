"""What every arm's network makes of every contrastive loss, and DCL - NSCL beside its bounds.

python analysis/losses.py [--run-dir DIR] [--arms cl nscl scl ce] [--split train test] [--temperatures 0.5 1]
       [--num-images N] [--epochs 0,10,20|0:100:10] [--device auto] [--output DIR]

All arms and epochs see the same views in the same batches of the run's size (of the whole split where it is smaller),
drawn with the run's augmentation and seed, of an epoch that is never trained on; networks in evaluation mode; the
ragged last batch is dropped. One pass over the images an epoch serves all. Everything after the projections is float64.

losses.csv: the mean over the anchors of nt_xent, dcl, nscl and supcon, and how many anchors a loss leaves out.
loss_gap.csv: the mean of DCL - NSCL (`gap`, over the anchors that both count), of its bound for the classes of the
batches (`bound`; bound_formulas.anchor_gap) and the bound for the whole set (`set_bound`; set_gap), how much of each is
used (`tightness`, `set_tightness`), and `tightest`, the highest gap / bound of a batch. 0 <= DCL - NSCL <= bound is a
theorem for every anchor; where it fails the program stops with an error.
Written anew from losses.csv at the end: loss_correlation.csv, the correlation of DCL and NSCL along training; and
nscl_reached.csv, each arm's NSCL loss beside that of the arms that minimise it (arXiv 2506.04411: CL comes near).
"""

from argparse import Namespace
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from coupled.analysis import parsers
from coupled.analysis.alignment import choose_device
from coupled.analysis.driver import run_program, tracked
from coupled.analysis.representations.embeddings import Embedder, choose_images, load_selected
from coupled.analysis.representations.features import UNTRAINED_EPOCH, plan_of
from coupled.analysis.run import DIGITS, select
from coupled.analysis.theory.loss_sums import LOSSES, Key, LossSums, ViolatedBoundError
from coupled.analysis.theory.loss_tables import write_correlation, write_reached
from coupled.analysis.tidy_csv import open_table
from coupled.config.schema import Settings, from_resolved
from coupled.datasets import AnyImageSet
from coupled.models.network import Network
from coupled.monitoring.terminal import say
from coupled.objectives import Inputs
from coupled.stream.batches import batches
from coupled.stream.sampler import order
from coupled.stream.seeds import set_determinism
from coupled.stream.view_plan import EpochPlan

Row = tuple[object, ...]


class Stream(NamedTuple):
    """The batches of a split, the same for every arm and epoch."""

    images: AnyImageSet
    order_KB: NDArray[np.int64]
    plan: EpochPlan
    largest_class: int
    num_images: int

    def source(self, snapshot: str) -> tuple[object, ...]:
        """The last cells of both keys: images chosen, images of a batch, digests of the snapshot and of all images."""
        return self.num_images, self.order_KB.shape[1], snapshot[:DIGITS], self.images.digest()[:DIGITS]


def stream(settings: Settings, images: AnyImageSet, split: str, samples: int | None) -> Stream:
    """The stream of at most `samples` images of a split."""
    chosen_N = choose_images(len(images), samples, settings.seed, split)
    labels_N = images.labels_N[chosen_N].numpy()
    size = min(settings.batch.size, len(chosen_N))
    order_KB = order(settings.seed, UNTRAINED_EPOCH, labels_N, size, settings.batch.sampler)
    largest = int(np.unique(labels_N, return_counts=True)[1].max())
    return Stream(images, chosen_N.numpy()[order_KB], plan_of(settings, images), largest, len(chosen_N))


def measure(
    embedder: Embedder, seen: Stream, arms: Sequence[str], temperatures: Sequence[float], epoch: int
) -> dict[str, LossSums]:
    """The sums over all batches, by arm. Raises ViolatedBoundError that says the batch and the arm."""
    sums = {arm: LossSums(temperatures) for arm in arms}
    networks = {arm: embedder.network(arm, epoch) for arm in arms}
    settings = embedder.settings
    for batch in batches(
        seen.images,
        seen.order_KB,
        seen.plan,
        epoch=UNTRAINED_EPOCH,
        size=settings.image_size,
        device=embedder.device,
        workers=settings.dataset.num_workers,
    ):
        for arm, network in networks.items():
            projections = {"projection": projections_of(network, batch.views_VB3SS)}
            try:
                sums[arm].update(Inputs(projections, projections, batch.labels_B, batch.labels_N))
            except ViolatedBoundError as error:
                raise ViolatedBoundError(f"epoch {epoch}, arm '{arm}', batch {batch.number}: {error}") from None
    return sums


@torch.no_grad()
def projections_of(network: Network, views_VB3SS: Tensor) -> Tensor:
    """Projections [V, B, P], of unit norm in float64: in float32 the bounds would hold to e^(2/tau) roundings only."""
    return normalize(network(views_VB3SS)["projection"].double(), dim=-1)


def loss_rows(epoch: int, split: str, arm: str, source: Row, sums: LossSums) -> list[tuple[object, ...]]:
    """The rows of losses.csv."""
    return [
        (epoch, split, arm, loss, temperature, total.mean, total.skipped_anchors, *source)
        for (loss, temperature), total in sums.losses.items()
    ]


def gap_rows(epoch: int, split: str, arm: str, seen: Stream, source: Row, sums: LossSums) -> list[tuple[object, ...]]:
    """The rows of loss_gap.csv."""
    found: list[tuple[object, ...]] = []
    for temperature in sums.temperatures:
        gap = sums.gap(temperature, seen.largest_class, seen.num_images)
        found.append((epoch, split, arm, temperature, *gap, *source))
    return found


def losses(options: Namespace) -> None:
    """Write the rows that the tables do not have yet, epoch by epoch, and the tables that follow from them."""
    device = choose_device(options.device)
    selected = select(options)
    store, arms, epochs, output = selected.store, selected.arms, selected.epochs, selected.output
    settings = from_resolved(selected.description["settings"], "run.json")
    temperatures = list(dict.fromkeys(options.temperatures or (settings.temperature, 1.0)))
    streams = {}
    for split in dict.fromkeys(options.split):
        images = load_selected(settings, split, selected, options)
        streams[split] = stream(settings, images, split, options.samples)
    table = open_table(output / "losses.csv")
    gaps = open_table(output / "loss_gap.csv")
    set_determinism(True, None)
    embedder = Embedder(settings, store, device)
    digests = {(entry.arm, entry.epoch): entry.digest for entry in store.entries()}
    every: list[Key] = [(loss, temperature) for loss in LOSSES for temperature in temperatures]
    for epoch in tracked(epochs, "epochs"):
        for split, seen in streams.items():
            source = {arm: seen.source(digests[arm, epoch]) for arm in arms}
            missing = [
                arm
                for arm in arms
                if not all(table.has(epoch, split, arm, *key, *source[arm]) for key in every)
                or not all(gaps.has(epoch, split, arm, each, *source[arm]) for each in temperatures)
            ]
            good = embedder.readable(missing, epoch, options.skip_bad)
            found = measure(embedder, seen, good, temperatures, epoch) if good else {}
            table.append(row for arm, sums in found.items() for row in loss_rows(epoch, split, arm, source[arm], sums))
            gaps.append(
                row for arm, sums in found.items() for row in gap_rows(epoch, split, arm, seen, source[arm], sums)
            )
    for each in (table, gaps):
        say(f"{each.path}: {each.written} new rows, {len(each.held)} in all")
    write_correlation(table.path, output / "loss_correlation.csv")
    direct = [arm for arm in settings.arms if settings.arms[arm].objective == "nscl"]
    write_reached(table.path, output / "nscl_reached.csv", direct)
    if not direct:
        say("nscl_reached.csv is empty: no arm of the run minimises nscl")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(losses, parsers.losses(), arguments)
