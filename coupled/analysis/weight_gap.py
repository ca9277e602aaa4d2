"""Measure distances and angles between the arms' weights and the reference arm's, layer by layer, at every snapshot.

Writes weight_gap.csv. Tensors are read by name, one at a time, without a model, images or a GPU. For each compared arm
(every pair with `--compare all`) and epoch there is one row per floating-point tensor of encoder and projector. Further
rows aggregate the encoder's `.weight` tensors (including the scales of batch norm, without biases, running statistics
and the projector) for each stage (`module` layer1 ...) and for the whole encoder (`module` empty). `tensor` is the full
name, empty in aggregates; `module` is named as in the tables of alignment.py; `aggregate` is empty for one tensor, else
* `mean`, `sum`: of the columns gap, distance, norms, drifts and (mean only) cosines and angle over those layers;
* `global`: of those layers concatenated to one vector.
A drift is an arm's distance from its epoch 0. update_cosine is the cosine between the two arms' updates since the
previous snapshot. Tensors of the projector that only one arm has, or with another shape, have no rows; they are
printed. The last columns are the digests of the two snapshots; of rows that differ only in digests, the last
one is valid. weight_gap_growth.csv is rewritten from the encoder's `global` rows of all epochs (see growth.py).

`--align permutation` writes weight_gap_permutation.csv instead: the same measures after the channels of each compared
arm, a ResNet, are reordered to match the reference (see channel_matching.py); `moved` counts the reordered channels.
`--unit-filters` writes weight_gap_filters.csv instead: the same measures after each filter (a slice of the first
dimension of a tensor with two or more) is divided by its norm, because batch norm makes the scale of a filter
arbitrary. Filters of zeros stay zero.
"""

import contextlib
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from coupled.analysis import parsers
from coupled.analysis.against import joined
from coupled.analysis.driver import Chunk, Plan, RowExists, append_missing, run_program, skipping, to_frame, tracked
from coupled.analysis.run import Run
from coupled.analysis.selection import Pair, Selection, choices, select_pairs
from coupled.analysis.weights.channel_matching import channel_axes, match_channels, permuted
from coupled.analysis.weights.growth import write_growth
from coupled.analysis.weights.open_snapshots import OpenSnapshots
from coupled.metrics.weights import Squares, all_squares, comparable_layers, gap_rows, not_compared, with_unit_filters
from coupled.monitoring.terminal import say
from coupled.storage.snapshots import BadSnapshotError

LAST = ("", "", "global")  # tensor, module and aggregate of the last of a pair's rows
ALIGNMENTS = ("none", "permutation")
Row = tuple[object, ...]


class ComparedEpochs(NamedTuple):
    """An epoch, and the earlier epochs for its drifts and updates."""

    epoch: int
    start: int | None  # 0, if the run has that snapshot
    before: int | None  # the epoch of the previous snapshot, if there is one


def rows(
    opened: OpenSnapshots,
    moment: ComparedEpochs,
    pairs: Sequence[Pair],
    align: bool = False,
    unit_filters: bool = False,
) -> list[Row]:
    """Return the rows of these pairs at one epoch: layers sorted by name, then the aggregates. Raises ValueError.

    Each tensor of each arm is read once. With `align` a row ends with the number of reordered channels.
    """
    layers = {pair: _layers(opened, moment.epoch, *pair, align) for pair in pairs}
    shapes = {arm: opened.shapes(arm, moment.epoch) for pair in pairs for arm in pair}
    moves = {pair: _moves(opened, moment.epoch, pair, layers[pair]) if align else {} for pair in pairs}
    axes = {pair: channel_axes({layer: shapes[pair[0]][layer] for layer in layers[pair]}) for pair in pairs if align}
    sums: dict[Pair, dict[str, Squares]] = {pair: {} for pair in pairs}
    for layer in sorted({layer for found in layers.values() for layer in found}):
        tensors = {
            arm: _history(opened, arm, moment, layer, unit_filters) for arm, there in shapes.items() if layer in there
        }
        concerned = [pair for pair in pairs if layer in layers[pair]]
        if not align:
            for pair, total in all_squares(tensors, concerned).items():
                sums[pair][layer] = total
            continue
        for reference, arm in concerned:
            order = axes[reference, arm].get(layer, ()), moves[reference, arm]
            turned = tuple(None if each is None else permuted(each, *order) for each in tensors[arm])
            pair = reference, arm
            sums[pair][layer] = all_squares({reference: tensors[reference], arm: turned}, [pair])[pair]
    found: list[Row] = []
    for pair in pairs:
        dimensions = {layer: len(shapes[pair[0]][layer]) for layer in layers[pair]}
        moved = [sum(int((order != torch.arange(len(order))).sum()) for order in moves[pair].values())] if align else []
        found += [(moment.epoch, *pair, *place, *gap, *moved) for place, gap in gap_rows(sums[pair], dimensions)]
    return found


def _layers(opened: OpenSnapshots, epoch: int, reference: str, arm: str, align: bool) -> list[str]:
    """Return the compared layers: of different projectors the equal shapes, and none if channels are reordered."""
    shapes = opened.shapes(reference, epoch), opened.shapes(arm, epoch)
    try:
        layers = comparable_layers(*shapes)
        only = "encoder." if align and not_compared(*shapes) else ""
        return [layer for layer in layers if layer.startswith(only)]
    except ValueError as error:
        if isinstance(error, BadSnapshotError):
            raise
        place = f"{opened.store.path(reference, epoch)} and {opened.store.path(arm, epoch)}"
        raise BadSnapshotError(f"compare: arms '{reference}' and '{arm}' at epoch {epoch}: {error} ({place})") from None


def say_not_compared(opened: OpenSnapshots, epoch: int, pairs: Sequence[Pair], align: bool) -> None:
    """Print for each pair of arms with different projectors which tensors have no rows."""
    for pair in pairs:
        shapes = [opened.shapes(arm, epoch) for arm in pair]
        if left_out := not_compared(*shapes):
            names = "all tensors of the projectors" if align else ", ".join(left_out)
            say(f"arms '{pair[0]}' and '{pair[1]}' have different projectors; not compared: {names}", sys.stderr)


def _history(
    opened: OpenSnapshots, arm: str, moment: ComparedEpochs, layer: str, unit_filters: bool = False
) -> tuple[torch.Tensor | None, ...]:
    """Return the tensor at the epoch, at the start and at the previous snapshot."""
    there = {epoch: opened.tensor(arm, epoch, layer) for epoch in set(moment) if epoch is not None}
    if unit_filters:
        there = {epoch: with_unit_filters(tensor) for epoch, tensor in there.items()}
    return tuple(None if epoch is None else there[epoch] for epoch in moment)


def _moves(opened: OpenSnapshots, epoch: int, pair: Pair, layers: Sequence[str]) -> dict[str, torch.Tensor]:
    reference, arm = ({layer: opened.tensor(name, epoch, layer) for layer in layers} for name in pair)
    try:
        return match_channels(reference, arm, channel_axes({layer: tuple(reference[layer].shape) for layer in layers}))
    except ValueError as error:
        raise ValueError(f"align: arms '{pair[0]}' and '{pair[1]}': {error}") from None


def compute(
    run: Run,
    *,
    compare: Sequence[str] | str | None = None,
    reference: str | None = None,
    against: Run | Path | str | None = None,
    epochs: Collection[int] | int | str | None = None,
    align: str = "none",
    unit_filters: bool = False,
    skip_corrupt: bool = False,
) -> pd.DataFrame:
    """Return distances and angles between the arms' weights and the reference arm's.

    Args:
        run: the run; only its snapshots are read.
        compare: arms to compare (default: every other arm), or "all" for every pair of arms.
        reference: the arm they are compared with (default: cl, or the run's first arm if there is no cl).
        against: another run: each arm is compared with its arm of the same name, `<folder>:<arm>` in the rows.
        epochs: numbers of epochs, or a text such as "0:100:10" (default: all that these arms have).
        align: "permutation" first reorders the channels of each compared arm, a ResNet, to match the reference.
        unit_filters: first divide each filter by its norm; not with align="permutation".
        skip_corrupt: skip missing and damaged snapshots, and print which.

    Returns:
        The rows of weight_gap.csv, weight_gap_permutation.csv or weight_gap_filters.csv, with their columns (see
        `schemas.SCHEMAS`): for each epoch and pair one row per tensor, then aggregates over stages and the encoder. NaN
        where undefined.

    Raises:
        ValueError: for an unknown arm, epoch or alignment, or a damaged snapshot.

    Example:
        >>> gaps = compute(run, compare=["nscl"])
        >>> whole = gaps[(gaps["aggregate"] == "global") & gaps["module"].isna()]
        >>> [(row.epoch, row.gap > 0) for row in whole.itertuples()]
        [(0, False), (1, True)]
    """
    run = joined(run, against)
    chosen = select_pairs(run, compare=compare, reference=reference, epochs=epochs, skip_corrupt=skip_corrupt)
    return to_frame(plan(run, chosen, align=align, unit_filters=unit_filters, skip_corrupt=skip_corrupt))


def plan(
    run: Run, chosen: Selection, *, align: str = "none", unit_filters: bool = False, skip_corrupt: bool = False
) -> Plan:
    """Plan the rows of the chosen pairs and epochs; arguments as in `compute`."""
    choices("align", [align], ALIGNMENTS)
    if unit_filters and align != "none":
        raise ValueError(f"unit_filters: not with align={align}; compute one after the other")
    table = "weight_gap.csv" if align == "none" else "weight_gap_permutation.csv"
    table = "weight_gap_filters.csv" if unit_filters else table

    def finish(output: Path) -> None:
        if table == "weight_gap.csv":
            write_growth(output / table, output / "weight_gap_growth.csv")

    return Plan([table], partial(chunks, run, chosen, table, (align != "none", unit_filters), skip_corrupt), finish)


def chunks(
    run: Run, chosen: Selection, table: str, changes: tuple[bool, bool], skip_corrupt: bool, has: RowExists
) -> Iterator[Chunk]:
    """Yield the missing rows of the table, epoch by epoch; `changes` are `align` and `unit_filters` of `rows`."""
    digests = run.snapshot_digests()
    there = run.epochs((chosen.reference, *chosen.arms))
    work: list[tuple[ComparedEpochs, list[Pair]]] = []
    for epoch in chosen.epochs:
        # `global` is the last row of a pair: an interrupted write does not contain it
        missing = [p for p in chosen.pairs if not has(table, epoch, *p, *LAST, *(digests[arm, epoch] for arm in p))]
        before = max((earlier for earlier in there if earlier < epoch), default=None)
        if missing:
            work.append((ComparedEpochs(epoch, 0 if 0 in there else None, before), missing))
    told: set[Pair] = set()
    with OpenSnapshots(run.snapshots) as opened:
        for number, (moment, missing) in enumerate(tracked(work, "epochs")):
            for soon, pairs in work[number : number + 2]:
                opened.check_ahead(snapshots_of(soon, pairs))
            opened.keep(snapshots_of(moment, missing))
            for together in [[pair] for pair in missing] if skip_corrupt else [missing]:
                with skipping(skip_corrupt):
                    seen = readable(opened, together[0], moment) if skip_corrupt else moment
                    found = rows(opened, seen, together, *changes)
                    epoch = moment.epoch
                    say_not_compared(opened, epoch, [pair for pair in together if pair not in told], changes[0])
                    told.update(together)
                    yield Chunk(table, [(*row, *(digests[str(arm), epoch] for arm in row[1:3])) for row in found])


def snapshots_of(moment: ComparedEpochs, pairs: Iterable[Pair]) -> list[tuple[str, int]]:
    """Return the snapshots (arm, epoch) that the rows of these pairs are computed from, the present epoch first."""
    arms = dict.fromkeys(arm for pair in pairs for arm in pair)
    return [(arm, epoch) for epoch in dict.fromkeys(moment) if epoch is not None for arm in arms]


def readable(opened: OpenSnapshots, pair: Pair, moment: ComparedEpochs) -> ComparedEpochs:
    """Return the moment without earlier epochs whose snapshots are damaged; those are reported at their own epoch."""

    def good(epoch: int) -> bool:
        with contextlib.suppress(BadSnapshotError):
            return bool([opened.get(arm, epoch) for arm in pair])
        return False

    start, before = (None if epoch is None or not good(epoch) else epoch for epoch in (moment.start, moment.before))
    return ComparedEpochs(moment.epoch, start, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    return run_program(partial(append_missing, select_pairs, plan), parsers.weight_gap(), arguments)
