"""Measure the loss barrier between two arms: losses and accuracy of the weights (1 - a) reference + a arm.

Writes barrier.csv, one value per row; `position` is a. The losses (module z) are those of losses.py, on the same
augmented views, at the temperature of the run. The classifiers (module h) are fitted on clean train images and scored
on clean images of the split. `excess` is the value minus the straight line between the values at both ends, which are
always measured (Frankle et al. 2020, arXiv 1912.05671). Mean and variance of every batch norm are measured anew at each
position, as in merge.py. With `--align permutation` the channels of the arm, a ResNet, are first reordered to match the
reference (see weights/channel_matching.py): this is the barrier modulo permutation (Entezari et al. 2022, arXiv
2110.06296; Ainsworth et al. 2022, arXiv 2209.04836).
At the end barrier_height.csv is rewritten from barrier.csv: the largest excess of each loss over the measured
positions, and the largest loss of each accuracy. The last columns are digests as in the tables of quality.py.
"""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import pandas as pd
from torch import Tensor, nn

from coupled.analysis import output_parsers
from coupled.analysis.driver import Chunk, Plan, RowExists, append_missing, run_program, skipping, to_frame, tracked
from coupled.analysis.losses import Batches, batches_of, sums_of
from coupled.analysis.merge import check_points, shuffled_batches
from coupled.analysis.quality import Samples, print_undefined_reasons
from coupled.analysis.representations.embeddings import choose_device, load_sample, load_weights, network_of
from coupled.analysis.representations.features import features_of
from coupled.analysis.run import Run
from coupled.analysis.selection import Pair, Selection, check_labelled, choices, listed, select_pairs
from coupled.analysis.theory.loss_sums import LOSSES
from coupled.analysis.weight_gap import ALIGNMENTS
from coupled.analysis.weights.barrier_rows import TABLE, What, rows, write_heights
from coupled.analysis.weights.channel_matching import in_matching_order
from coupled.analysis.weights.interpolation import batch_norms, interpolate, renew_batch_norm
from coupled.config.metric_registry import ArmMetric, find_classifiers
from coupled.datasets import SPLITS
from coupled.models.network import Network, shared_tensors
from coupled.monitoring.terminal import say
from coupled.storage.run_description import has_projector
from coupled.stream.clean import clean_batches


class Measured(NamedTuple):
    """What is measured at each position, on which images."""

    samples: Samples
    seen: Mapping[str, Batches]  # of the losses, by split
    norm_N: Tensor  # train images for the batch norms
    classifiers: Sequence[ArmMetric]
    temperature: float

    def cells(self, split: str, what: What) -> What:
        """The cells of a row from `num_images` to `batch_size`."""
        if what[0] == "z":
            return self.seen[split].num_images, "", len(self.norm_N), self.seen[split].order_KG.shape[1]
        return len(self.samples[split].chosen_N), len(self.samples["train"].chosen_N), len(self.norm_N), ""


def compute(
    run: Run,
    *,
    compare: Sequence[str] | str | None = None,
    reference: str | None = None,
    epochs: Collection[int] | int | str | None = None,
    split: Sequence[str] | str = SPLITS,
    points: Sequence[float] = output_parsers.POINTS,
    align: str = "none",
    batch_norm_images: int = output_parsers.BATCH_NORM_IMAGES,
    metrics: Sequence[str] | str = output_parsers.BARRIER_CLASSIFIERS,
    num_images: int | None = None,
    device: str = "auto",
    skip_corrupt: bool = False,
    accept_changed_images: bool = False,
) -> pd.DataFrame:
    """Return losses and accuracy of the weights between two arms, at several points of the straight line.

    Args:
        run: the run.
        compare: arms to compare with the reference (default: every other arm), or "all" for every pair of arms.
        reference: the arm at 0 (default: cl, or the run's first arm if there is no cl).
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        split: "train", "test" or both.
        points: positions on the line, from 0 (the reference) to 1 (the arm); both ends are always measured.
        align: "permutation" first reorders the channels of each compared arm, a ResNet, to match the reference.
        batch_norm_images: number of train images on which mean and variance of batch norms are measured anew; 0
            interpolates the running averages instead.
        metrics: classifiers: names of files of coupled/metrics/arm that are fitted on train.
        num_images: at most this many images per split, always the same ones (default: all).
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        skip_corrupt: skip missing and damaged snapshots, and print which.
        accept_changed_images: measure the images although they are not those of the run.

    Returns:
        The rows of barrier.csv with their columns (see `schemas.SCHEMAS`): one value per row, NaN where it is
        undefined. Losses are in nats.

    Raises:
        ValueError: for an unknown arm, epoch, split or metric, a position outside [0, 1], an arm whose channels cannot
            be reordered, a damaged snapshot, or images that are not those of the run.

    Example:
        >>> found = compute(run, epochs=0, split="test", points=[0.5], metrics="nccc", num_images=64)
        >>> found[found["metric"] == "nscl"][["arm", "position", "excess"]].values.tolist()
        [['nscl', 0.0, 0.0], ['nscl', 0.5, 0.0], ['nscl', 1.0, 0.0]]
    """
    chosen = select_pairs(run, compare=compare, reference=reference, epochs=epochs, skip_corrupt=skip_corrupt)
    images = (num_images, device, skip_corrupt, accept_changed_images)
    return to_frame(plan(run, chosen, split, points, align, batch_norm_images, metrics, *images), TABLE)


def plan(
    run: Run,
    chosen: Selection,
    split: Sequence[str] | str,
    points: Sequence[float],
    align: str,
    batch_norm_images: int,
    metrics: Sequence[str] | str,
    num_images: int | None,
    device: str,
    skip_corrupt: bool,
    accept_changed_images: bool,
) -> Plan:
    """Plan the values of the chosen pairs and epochs. Arguments as in `compute`."""
    check_labelled(run, "the loss barrier")
    choices("align", [align], ALIGNMENTS)
    splits, positions = choices("split", split, SPLITS), sorted({0.0, *check_points(points), 1.0})
    if batch_norm_images < 0 or batch_norm_images == 1:
        raise ValueError(f"batch_norm_images: got {batch_norm_images}; 0, or a number of 2 or more, is allowed")
    classifiers, temperature = find_classifiers(listed(metrics)), run.settings.temperature
    networks = {pair: _network(run, pair).to(choose_device(device)).eval() for pair in chosen.pairs}

    def chunks(has: RowExists) -> Iterator[Chunk]:
        samples = {name: load_sample(run, name, num_images, accept_changed_images) for name in SPLITS}
        seen = {name: batches_of(run.settings, samples[name]) for name in splits}
        norm_images = batch_norm_images if batch_norms(next(iter(networks.values()))) else 0
        norm_N = shuffled_batches(len(samples["train"].images), norm_images, run.settings.seed)
        measured = Measured(samples, seen, norm_N, classifiers, temperature)
        digests = run.snapshot_digests()
        for epoch, pair in tracked(product(chosen.epochs, chosen.pairs), "pairs"):
            of_snapshots = [digests[arm, epoch] for arm in pair]
            wanted = list(product(splits, positions, _wanted(networks[pair], classifiers, temperature)))
            keys = {
                (name, position, what): (
                    *(epoch, name, *pair, align, position, *what, *measured.cells(name, what)),
                    *(*of_snapshots, samples[name].digest, samples["train"].digest),
                )
                for name, position, what in wanted
            }
            if all(has(TABLE, *key) for key in keys.values()):
                continue
            with skipping(skip_corrupt):
                ends = ends_of(run, networks[pair], pair, epoch, align)
                values = {at: measure(networks[pair], run, ends, at, measured, (epoch, *pair)) for at in positions}
                yield Chunk(TABLE, list(rows(keys, values)))

    return Plan([TABLE], chunks, write_heights)


def _network(run: Run, pair: Pair) -> Network:
    """Return a network for the weights of a pair, without a projector if theirs differ; then print that."""
    network, projector_of = network_of(run, pair[0]), run.settings.projector_of
    if not has_projector(run.description) or projector_of(pair[0]) == projector_of(pair[1]):
        return network
    say(f"arms '{pair[0]}' and '{pair[1]}' have different projectors; not measured: the losses of z", sys.stderr)
    return Network(network.encoder, nn.Sequential(), {}, {}, needs=("embedding",))


def _wanted(network: Network, classifiers: Sequence[ArmMetric], temperature: float) -> list[What]:
    """Return the values of each position and split: the losses, if there is a projector, and the classifiers."""
    losses = [("z", loss, "", "", "", temperature) for loss in LOSSES] if network.project else []
    return [*losses, *(("h", metric.name, *variant, "") for metric in classifiers for variant in metric.variants)]


def ends_of(run: Run, network: Network, pair: Pair, epoch: int, align: str) -> list[dict[str, Tensor]]:
    """Return the tensors of both arms that `network` has, the arm's in the order `align`.

    Raises ValueError if a snapshot is damaged, does not fit the network, or its channels cannot be reordered.
    """
    expected, ends = shared_tensors(network), []
    for arm in pair:
        tensors = run.state_dict(arm, epoch)
        ends.append({name: tensor for name, tensor in tensors.items() if name.split(".")[0] in _parts(expected)})
        load_weights(network, ends[-1], str(run.snapshots.path(arm, epoch)))
    if align == "permutation":
        try:
            ends[1] = in_matching_order(*ends)
        except ValueError as error:
            raise ValueError(f"align: arms '{pair[0]}' and '{pair[1]}': {error}") from None
    return ends


def _parts(names: Collection[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def measure(
    network: Network,
    run: Run,
    ends: Sequence[Mapping[str, Tensor]],
    position: float,
    measured: Measured,
    where: tuple[int, str, str],
) -> dict[tuple[str, What], float]:
    """Return the values at a position by split and kind; print the reason of an undefined one."""
    reference, arm = ends
    network.load_state_dict(interpolate(reference, arm, position))
    train, settings = measured.samples["train"], run.settings
    device = next(network.parameters()).device
    if len(measured.norm_N):
        size, workers = settings.image_size, settings.dataset.num_workers
        renew_batch_norm(network, clean_batches(train.images, measured.norm_N, size, device, workers))
    found: dict[tuple[str, What], float] = {}
    name = f"epoch {where[0]}, {where[1]} to {where[2]} {position:g}"
    splits = dict.fromkeys(["train", *measured.seen] if measured.classifiers else [])
    rows_of = {split: features_of(network, settings, *measured.samples[split][:2], ["h"])["h"] for split in splits}
    for split, seen in measured.seen.items():
        if network.project:
            sums = sums_of({name: network}, settings, seen, [measured.temperature])[name]
            for (loss, tau), total in sums.losses.items():
                found[split, ("z", loss, "", "", "", tau)] = total.mean
        for metric in measured.classifiers:
            values = metric.measured(rows_of["train"], rows_of[split], settings.seed)
            print_undefined_reasons(f"{name}, {split} h {metric.name}", values)
            found |= {(split, ("h", metric.name, *variant, "")): each.value for variant, each in values.items()}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select_pairs, plan), output_parsers.barrier(), arguments)
