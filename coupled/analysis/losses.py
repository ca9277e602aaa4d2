"""Evaluate every contrastive loss for every arm, and compare DCL - NSCL with its bounds.

All arms and epochs see the same views in the same batches. The batch size is the run's, or the whole split if that is
smaller; an incomplete last batch is dropped. The views are drawn with the run's augmentation and seed, for an epoch
number that is never trained on. Networks are in evaluation mode. The images are read once per epoch for all arms. All
computations after the projections are in float64.

losses.csv: the mean over the anchors of nt_xent, dcl, nscl and supcon, and the number of anchors that a loss skips.
loss_gap.csv: the mean of DCL - NSCL (`gap`, over the anchors that neither loss skips), of its bound for the classes of
the batches (`bound`; bound_formulas.anchor_gap), and the bound for the whole set (`set_bound`; set_gap); their ratios
(`tightness`, `set_tightness`), and `tightest`, the highest gap / bound of a batch. 0 <= DCL - NSCL <= bound is a
theorem for every anchor; the program stops with an error if it fails.
At the end two tables are rewritten from losses.csv: loss_correlation.csv, the correlation of DCL and NSCL during
training; and nscl_reached.csv, each arm's NSCL loss compared with that of the arms that minimise it (arXiv 2506.04411:
CL comes near).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, product
from math import inf
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from coupled.analysis import parsers
from coupled.analysis.driver import (
    Chunk,
    Plan,
    RowExists,
    append_missing,
    run_program,
    to_frame,
    tracked,
)
from coupled.analysis.representations.embeddings import Embedder, Sample, check_projector, choose_device, load_sample
from coupled.analysis.representations.features import UNTRAINED_EPOCH, plan_of
from coupled.analysis.run import DIGITS, Run
from coupled.analysis.selection import Selection, check_labelled, choices, select_arms
from coupled.analysis.theory.loss_sums import LOSSES, LossSums, ViolatedBoundError
from coupled.analysis.theory.loss_tables import write_what_follows
from coupled.config.schema import Settings
from coupled.datasets import SPLITS, AnyImageDataset
from coupled.models.network import Network
from coupled.monitoring.commands import suggest
from coupled.objectives import Inputs, nscl
from coupled.stream.batches import batches
from coupled.stream.sampler import order
from coupled.stream.view_plan import EpochPlan

LOSS, GAP = "losses.csv", "loss_gap.csv"
Row = tuple[object, ...]


class Batches(NamedTuple):
    """The batches of a split, the same for every arm and epoch."""

    images: AnyImageDataset
    order_KG: NDArray[np.int64]
    plan: EpochPlan
    largest_class: int
    num_images: int

    def source(self, snapshot: str) -> tuple[object, ...]:
        """The last cells of both keys: number of images, batch size, digests of the snapshot and of all images."""
        return self.num_images, self.order_KG.shape[1], snapshot, self.images.digest()[:DIGITS]


def batches_of(settings: Settings, sample: Sample) -> Batches:
    """Return the batches of the chosen images."""
    labels_N = sample.images.labels_N[sample.chosen_N].numpy()
    size = min(settings.batch.size, len(labels_N))
    order_KG = order(settings.seed, UNTRAINED_EPOCH, labels_N, size, settings.batch.sampler)
    largest = int(np.unique(labels_N, return_counts=True)[1].max())
    plan = plan_of(settings, sample.images)
    return Batches(sample.images, sample.chosen_N.numpy()[order_KG], plan, largest, len(labels_N))


def measure(
    embedder: Embedder, seen: Batches, arms: Sequence[str], temperatures: Sequence[float], epoch: int
) -> dict[str, LossSums]:
    """Return the sums over all batches by arm. Raises ViolatedBoundError, which names batch and arm."""
    networks = {arm: embedder.network(arm, epoch) for arm in arms}
    try:
        return sums_of(networks, embedder.settings, seen, temperatures)
    except ViolatedBoundError as error:
        check = suggest("verify", "--run-dir", str(embedder.run.path))
        raise ViolatedBoundError(f"epoch {epoch}, {error} Check them with: {check}") from None


def sums_of(
    networks: Mapping[str, Network], settings: Settings, seen: Batches, temperatures: Sequence[float]
) -> dict[str, LossSums]:
    """Return the sums over all batches by network. Raises ViolatedBoundError, which names network and batch."""
    sums = {name: LossSums(temperatures) for name in networks}
    for batch in batches(
        seen.images,
        seen.order_KG,
        seen.plan,
        epoch=UNTRAINED_EPOCH,
        size=settings.image_size,
        device=next(next(iter(networks.values())).parameters()).device,
        workers=settings.dataset.num_workers,
    ):
        for name, network in networks.items():
            projections = {"projection": projections_of(network, batch.views_VB3SS)}
            try:
                sums[name].update(Inputs(projections, projections, batch.labels_B, batch.labels_G))
            except ViolatedBoundError as error:
                raise ViolatedBoundError(f"arm '{name}', batch {batch.number}: {error}") from None
    return sums


@torch.no_grad()
def projections_of(network: Network, views_VB3SS: Tensor) -> Tensor:
    """Return projections [V, B, P] of unit norm in float64; float32 would violate the bounds by e^(2/tau) roundings."""
    return normalize(network(views_VB3SS)["projection"].double(), dim=-1)


def loss_rows(epoch: int, split: str, arm: str, source: Row, sums: LossSums) -> list[tuple[object, ...]]:
    """Return the rows of losses.csv."""
    return [
        (epoch, split, arm, loss, temperature, total.mean, total.skipped_anchors, *source)
        for (loss, temperature), total in sums.losses.items()
    ]


def gap_rows(epoch: int, split: str, arm: str, seen: Batches, source: Row, sums: LossSums) -> list[tuple[object, ...]]:
    """Return the rows of loss_gap.csv."""
    found: list[tuple[object, ...]] = []
    for temperature in sums.temperatures:
        gap = sums.gap(temperature, seen.largest_class, seen.num_images)
        found.append((epoch, split, arm, temperature, *gap, *source))
    return found


def compute(
    run: Run,
    *,
    arms: Sequence[str] | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    split: Sequence[str] | str = SPLITS,
    temperatures: Sequence[float] | None = None,
    table: str = "losses",
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
) -> pd.DataFrame:
    """Return every contrastive loss evaluated for every arm, or DCL - NSCL with its bounds.

    Args:
        run: the run.
        arms: arms to measure (default: all).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        split: "train", "test" or both.
        temperatures: numbers above 0 (default: the run's, and 1).
        table: "losses", the mean of each loss, or "loss_gap", DCL - NSCL and its bounds.
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.

    Returns:
        The rows of losses.csv or loss_gap.csv with their columns (see `schemas.SCHEMAS`), in nats.

    Raises:
        ValueError: for an unknown arm, epoch or split, a temperature of 0 or less, a damaged snapshot, images that are
            not those of the run, or an anchor for which 0 <= DCL - NSCL <= bound does not hold.

    Example:
        >>> found = compute(run, split="test", epochs=0, temperatures=[0.5])
        >>> sorted(set(found["loss"]))
        ['dcl', 'nscl', 'nt_xent', 'supcon']
    """
    (name,) = choices("table", [table], ("losses", "loss_gap"))
    chosen = select_arms(run, arms=arms, epochs=epochs, skip_corrupt=skip_corrupt)
    planned = plan(run, chosen, split, temperatures, num_images, device, skip_corrupt, accept_changed_images)
    return to_frame(planned, f"{name}.csv")


def plan(
    run: Run,
    chosen: Selection,
    split: Sequence[str] | str,
    temperatures: Sequence[float] | None,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
) -> Plan:
    """Plan the losses of the chosen arms and epochs; arguments as in `compute`."""
    check_projector(run)
    check_labelled(run, "losses")
    splits, embedder = choices("split", split, SPLITS), Embedder(run, choose_device(device))
    taus = list(dict.fromkeys(map(float, temperatures or (run.settings.temperature, 1.0))))
    if wrong := [tau for tau in taus if not 0 < tau < inf]:
        raise ValueError(f"temperatures: got {wrong[0]:g}; a number above 0 is allowed")

    def chunks(has: RowExists) -> Iterator[Chunk]:
        samples = {name: load_sample(run, name, num_images, accept_changed_images) for name in splits}
        seen = {name: batches_of(run.settings, sample) for name, sample in samples.items()}
        digests = run.snapshot_digests()
        for epoch in tracked(chosen.epochs, "epochs"):
            for name, part in seen.items():
                source = {arm: part.source(digests[arm, epoch]) for arm in chosen.arms}
                missing = [
                    arm
                    for arm in chosen.arms
                    if not all(has(LOSS, epoch, name, arm, *key, *source[arm]) for key in product(LOSSES, taus))
                    or not all(has(GAP, epoch, name, arm, tau, *source[arm]) for tau in taus)
                ]
                good = embedder.readable(missing, epoch, skip_corrupt)
                found = measure(embedder, part, good, taus, epoch) if good else {}
                yield Chunk(LOSS, [r for arm in found for r in loss_rows(epoch, name, arm, source[arm], found[arm])])
                gaps = (gap_rows(epoch, name, arm, part, source[arm], sums) for arm, sums in found.items())
                yield Chunk(GAP, list(chain.from_iterable(gaps)))

    direct = [
        arm
        for arm, of_arm in run.settings.arms.items()
        if of_arm.objective == "nscl" and nscl.needs(**of_arm.options).true_labels
    ]
    return Plan([LOSS, GAP], chunks, lambda output: write_what_follows(output / LOSS, direct))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select_arms, plan), parsers.losses(), arguments)
