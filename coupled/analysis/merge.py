"""Measure the accuracy of the weights between two arms: (1 - a) reference + a arm, for several a in [0, 1].

Writes merge.csv, one value per row. Layer h is the embedding, z the projection; z is left out for two arms with
different projectors, and the program says so. Classifiers are fitted on clean images of train and scored on test, as in
quality.csv. `position` is a. Mean and variance of every batch norm are measured anew on `num_batch_norm_images` clean
train images (see weights/interpolation.py). If that is 0, the network has no batch norm, or the running averages were
interpolated like the weights (`--batch-norm-images 0`); then the values at 0 and 1 are those of quality.csv. Digests as
in the tables of quality.py.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import product

import pandas as pd
import torch
from torch import Tensor, nn

from coupled.analysis import output_parsers
from coupled.analysis.driver import Chunk, Plan, RowExists, append_missing, run_program, skipping, to_frame, tracked
from coupled.analysis.quality import Samples, print_undefined_reasons
from coupled.analysis.representations.embeddings import (
    Sample,
    choose_device,
    load_sample,
    load_weights,
    network_of,
)
from coupled.analysis.representations.features import features_of
from coupled.analysis.representations.layers import OUTPUTS, present
from coupled.analysis.run import Run
from coupled.analysis.selection import Selection, check_labelled, choices, listed, select_pairs
from coupled.analysis.weights.interpolation import batch_norms, interpolate, renew_batch_norm
from coupled.config.metric_registry import ArmMetric, find_classifiers
from coupled.datasets import SPLITS
from coupled.metrics.arm import Variant
from coupled.models.network import Network, shared_tensors
from coupled.monitoring.terminal import say
from coupled.storage.run_description import has_projector
from coupled.stream.clean import BATCH, clean_batches
from coupled.stream.seeds import permutation, philox

TABLE = "merge.csv"


def compute(
    run: Run,
    *,
    compare: Sequence[str] | str | None = None,
    reference: str | None = None,
    epochs: Collection[int] | int | str | None = None,
    points: Sequence[float] = output_parsers.POINTS,
    batch_norm_images: int = output_parsers.BATCH_NORM_IMAGES,
    layers: Sequence[str] | str = tuple(OUTPUTS),
    metrics: Sequence[str] | str = output_parsers.CLASSIFIERS,
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
) -> pd.DataFrame:
    """Return the accuracy of the weights between two arms, at several points of the straight line.

    Args:
        run: the run.
        compare: arms to merge with the reference (default: every other arm), or "all" for every pair of arms.
        reference: the arm at 0 (default: cl, or the run's first arm if there is no cl).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        points: positions on the line, from 0 (the reference) to 1 (the arm).
        batch_norm_images: number of train images on which mean and variance of batch norms are measured anew; 0
            interpolates the running averages instead.
        layers: "h" (embedding), "z" (projection) or both.
        metrics: classifiers: names of files of coupled/metrics/arm that are fitted on train and scored on test.
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.

    Returns:
        The rows of merge.csv with their columns (see `schemas.SCHEMAS`): one value per row, NaN where it is undefined.

    Raises:
        ValueError: for an unknown arm, epoch, layer or metric, a position outside [0, 1], a damaged snapshot, or images
            that are not those of the run.

    Example:
        >>> found = compute(run, epochs=0, points=[0, 0.5], layers="h", metrics="nccc", batch_norm_images=0)
        >>> found[["arm", "position", "metric"]].values.tolist()
        [['nscl', 0.0, 'nccc'], ['nscl', 0.5, 'nccc']]
    """
    chosen = select_pairs(run, compare=compare, reference=reference, epochs=epochs, skip_corrupt=skip_corrupt)
    images = (num_images, device, skip_corrupt, accept_changed_images)
    return to_frame(plan(run, chosen, points, batch_norm_images, layers, metrics, *images))


def plan(
    run: Run,
    chosen: Selection,
    points: Sequence[float],
    batch_norm_images: int,
    layers: Sequence[str] | str,
    metrics: Sequence[str] | str,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
) -> Plan:
    """Plan the values of the chosen pairs and epochs. Arguments as in `compute`."""
    positions = check_points(points)
    if batch_norm_images < 0 or batch_norm_images == 1:
        raise ValueError(f"batch_norm_images: got {batch_norm_images}; 0, or a number of 2 or more, is allowed")
    check_labelled(run, "the accuracy of merged arms")
    classifiers = find_classifiers(listed(metrics))
    outputs = present(choices("layers", layers, OUTPUTS), tuple(OUTPUTS) if has_projector(run.description) else ("h",))
    networks = {
        pair: (network.to(choose_device(device)).eval(), layers_of_pair)
        for pair, (network, layers_of_pair) in _networks(run, chosen.pairs, outputs).items()
    }
    kinds = [(metric, variant) for metric in classifiers for variant in metric.variants]

    def chunks(has: RowExists) -> Iterator[Chunk]:
        samples = {split: load_sample(run, split, num_images, accept_changed_images) for split in SPLITS}
        shuffled = shuffled_batches(len(samples["train"].images), batch_norm_images, run.settings.seed)
        digests = run.snapshot_digests()
        for epoch, (reference, arm) in tracked(product(chosen.epochs, networks), "pairs"):
            network, merged = networks[reference, arm]
            seen = shuffled if batch_norms(network) else shuffled[:0]
            wanted = [(layer, *kind) for layer in merged for kind in kinds]
            counts = (len(samples["test"].chosen_N), len(samples["train"].chosen_N), len(seen))
            about = (
                *counts,
                digests[reference, epoch],
                digests[arm, epoch],
                *(samples[s].digest for s in SPLITS[::-1]),
            )
            for position in positions:
                start = (epoch, reference, arm, position)
                keys = {each: (*start, each[0], each[1].name, *each[2]) for each in wanted}
                missing = [each for each in wanted if not has(TABLE, *keys[each], *about)]
                if not missing:
                    continue
                with skipping(skip_corrupt):
                    set_weights(
                        network, run, (reference, arm), epoch, position, samples["train"]._replace(chosen_N=seen)
                    )
                    found = accuracies(
                        network, run, samples, missing, f"epoch {epoch}, {reference} to {arm} {position}"
                    )
                    yield Chunk(TABLE, [(*keys[each], value, *about) for each, value in found.items()])

    return Plan([TABLE], chunks)


def _networks(
    run: Run, pairs: Sequence[tuple[str, str]], layers: Sequence[str]
) -> dict[tuple[str, str], tuple[Network, tuple[str, ...]]]:
    """Return a network for the weights of every pair, and the layers of it that are measured.

    If the projectors of a pair differ, the network has none and z is left out, which is printed. Raises ValueError if
    no pair has a layer.
    """
    projector_of = run.settings.projector_of
    apart = [(one, other) for one, other in pairs if "z" in layers and projector_of(one) != projector_of(other)]
    if apart and {*layers} == {"z"} and len(apart) == len(pairs):
        one, other = apart[0]
        raise ValueError(f"layers: got z, but arms '{one}' and '{other}' have different projectors; allowed is h")
    if apart:
        names = ", ".join(f"'{other}' with '{one}'" for one, other in apart)
        say(f"layer z is left out for {names}: their projectors differ", sys.stderr)
    found: dict[tuple[str, str], tuple[Network, tuple[str, ...]]] = {}
    for pair in pairs:
        network, kept = network_of(run, pair[0]), tuple(layer for layer in layers if layer == "h" or pair not in apart)
        if projector_of(pair[0]) != projector_of(pair[1]):
            network = Network(network.encoder, nn.Sequential(), {}, {}, needs=("embedding",))
        if kept:
            found[pair] = network, kept
    return found


def shuffled_batches(images: int, num_images: int, seed: int) -> Tensor:
    """Return the numbers of at most `num_images` images in random order, without an incomplete batch after others.

    The order is random, because a batch of one class, as in a sorted dataset, has other statistics than the dataset.
    """
    order_N = permutation(images, philox(seed, "analysis/batch norm"))[:num_images]
    return torch.from_numpy(order_N[: len(order_N) // BATCH * BATCH or len(order_N)])


def check_points(points: Sequence[float]) -> list[float]:
    """Return the positions as floats without duplicates. Raises ValueError for one outside [0, 1]."""
    for point in points:
        if not 0 <= point <= 1:
            raise ValueError(f"points: got {point:g}; a number from 0 (the reference) to 1 (the arm) is allowed")
    return list(dict.fromkeys(float(point) for point in points))


def set_weights(network: Network, run: Run, pair: tuple[str, str], epoch: int, position: float, train: Sample) -> None:
    """Give `network` the weights between two arms, and measure its batch norms anew on the chosen images of `train`.

    Without chosen images the running averages are interpolated, too. Raises ValueError if a snapshot is damaged or does
    not fit the network.
    """
    expected = shared_tensors(network)
    parts = {name.split(".")[0] for name in expected}
    one, other = (
        {name: each for name, each in run.state_dict(arm, epoch).items() if name.split(".")[0] in parts} for arm in pair
    )
    for arm, tensors in zip(pair, (one, other), strict=True):
        load_weights(network, tensors, str(run.snapshots.path(arm, epoch)))
    network.load_state_dict(
        {name: each for name, each in interpolate(one, other, position).items() if name in expected}
    )
    if len(train.chosen_N):
        workers, device = run.settings.dataset.num_workers, next(network.parameters()).device
        renew_batch_norm(network, clean_batches(train.images, train.chosen_N, run.settings.image_size, device, workers))


def accuracies(
    network: Network, run: Run, samples: Samples, wanted: Sequence[tuple[str, ArmMetric, Variant]], where: str
) -> dict[tuple[str, ArmMetric, Variant], float]:
    """Return the accuracies of a network by layer, metric and variant; an undefined one is printed with its reason."""
    layers = dict.fromkeys(layer for layer, _, _ in wanted)
    rows = {split: features_of(network, run.settings, *samples[split][:2], list(layers)) for split in SPLITS}
    found: dict[tuple[str, ArmMetric, Variant], float] = {}
    for layer, metric in dict.fromkeys((layer, metric) for layer, metric, _ in wanted):
        values = metric.measured(rows["train"][layer], rows["test"][layer], run.settings.seed)
        print_undefined_reasons(f"{where}, {layer} {metric.name}", values)
        found |= {(layer, metric, variant): measured.value for variant, measured in values.items()}
    return {each: found[each] for each in wanted}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select_pairs, plan), output_parsers.merge(), arguments)
