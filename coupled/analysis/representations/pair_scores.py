"""Scores of pairs of arms from one pass over the images.

All scores of an epoch are computed in one pass: from sums that arms, layers and metrics share, and from the rows of a
subset of images for metrics that use one. The images may be split over ranks; every rank gets the same values.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from coupled.config.metric_registry import PairMetric
from coupled.metrics.pair._sums import CrossSums, RowStream
from coupled.parallel.process_group import data_size, gather_images, gather_json

End = tuple[str, str]  # arm, layer
Class = int | None  # the images of one class, or all


class Score(NamedTuple):
    """One number to compute: `metric` between `reference` at `reference_layer` and `arm` at `layer`.

    `reference_layer` is "" if it is the same layer. `label` restricts the images to those of a class. `k` is the number
    of neighbours of `mutual_knn`, 0 for its default.
    """

    reference: str
    arm: str
    layer: str
    metric: str
    reference_layer: str = ""
    label: Class = None
    k: int = 0


class Accumulated(NamedTuple):
    """The result of a pass over the images: sums and rows."""

    streams: dict[tuple[str, End, Class], RowStream]  # by transform
    sums: dict[tuple[str, End, End, Class], CrossSums]  # by transform, this rank's
    subset_rows: dict[tuple[int, End], Tensor]  # of all ranks
    rows: dict[End, Tensor]  # all of this rank's, with keep_rows


def scores(
    batches: Iterable[Mapping[End, Tensor]],
    wanted: Sequence[Score],
    metrics: Mapping[str, PairMetric],
    subsets: Mapping[int, Tensor] | None = None,
) -> dict[Score, float]:
    """Return the wanted scores from one pass over `batches` of outputs [B, D] by (arm, layer).

    `subsets` maps the size of a subset to a mask of this rank's images in it (bool [N], N images of all batches).
    Without it, all images are in every subset.
    """
    return values(one_pass(batches, wanted, metrics, subsets), wanted, metrics)


def one_pass(
    batches: Iterable[Mapping[End, Tensor]],
    wanted: Sequence[Score],
    metrics: Mapping[str, PairMetric],
    subsets: Mapping[int, Tensor] | None = None,
    keep_rows: bool = False,
    labels_N: Tensor | None = None,
) -> Accumulated:
    """Return the sums and rows that `values` needs; `keep_rows` adds all rows, for intervals. See `scores`.

    `labels_N` are the classes of this rank's images, for scores of one class.
    """
    streams: dict[tuple[str, End, Class], RowStream] = {}
    sums: dict[tuple[str, End, End, Class], CrossSums] = {}  # an arm's sums with itself serve every pair
    kept: dict[tuple[int, End], list[Tensor]] = {}
    rows: dict[End, list[Tensor]] = {}
    for score in wanted:
        transform, subset = metrics[score.metric].transform, metrics[score.metric].subset
        for a, b in ends(score):
            if subset:
                kept.setdefault((subset, b), [])
            else:
                sums.setdefault((transform, a, b, score.label), CrossSums())
                streams.setdefault((transform, b, score.label), RowStream(transform))
                if keep_rows:
                    rows.setdefault(b, [])
    first = 0
    for outputs in batches:
        for (subset, end), parts in kept.items():
            inside_B = subsets[subset][first : first + len(outputs[end])] if subsets else slice(None)
            parts.append(outputs[end][inside_B])
        for end, parts in rows.items():
            parts.append(outputs[end])
        size = len(next(iter(outputs.values())))
        labels_B = None if labels_N is None else labels_N[first : first + size]
        first += size
        places = {label: _places(labels_B, label) for label in {label for *_, label in streams}}
        present = {label for label, places_b in places.items() if places_b is None or len(places_b)}
        seen = {
            (transform, end, label): stream.rows(_rows_at(outputs[end], places[label]))
            for (transform, end, label), stream in streams.items()
            if label in present
        }
        for (transform, a, b, label), total in sums.items():
            if label in present:
                total.update(seen[transform, a, label], seen[transform, b, label])
    for (_, a, b, _), total in sums.items():
        if total.pilots is None:  # this rank has no image of the class
            total.merge(CrossSums.empty(outputs[a], outputs[b]))
    return Accumulated(
        streams,
        sums,
        {key: rows_over_ranks(torch.cat(parts)) for key, parts in kept.items()},
        {end: torch.cat(parts) for end, parts in rows.items()},
    )


def values(seen: Accumulated, wanted: Sequence[Score], metrics: Mapping[str, PairMetric]) -> dict[Score, float]:
    """Return the wanted scores of all images of a pass."""
    moments = {key: over_ranks(sums).moments() for key, sums in seen.sums.items()}
    found = {}
    for score in wanted:
        metric, pairs = metrics[score.metric], ends(score)
        if metric.subset:
            found[score] = of_rows(metric, score, [seen.subset_rows[metric.subset, end] for end in pairs[2]])
        else:
            found[score] = metric.value(*(moments[metric.transform, *pair, score.label] for pair in pairs))
    return found


def of_rows(metric: PairMetric, score: Score, pair: Sequence[Tensor]) -> float:
    """Return the score of a metric of a subset from both arms' rows."""
    return metric.value(*pair, score.k) if score.k else metric.value(*pair)


def _places(labels_B: Tensor | None, label: Class) -> Tensor | None:
    """Return the indices of the images of a class in a batch; None for all images."""
    if label is None:
        return None
    assert labels_B is not None
    return (labels_B == label).nonzero()[:, 0]


def _rows_at(rows_BD: Tensor, places: Tensor | None) -> Tensor:
    return rows_BD if places is None else rows_BD[places.to(rows_BD.device)]


def over_ranks(sums: CrossSums) -> CrossSums:
    """Return the sums over all ranks, added in the order of ranks, so that every rank gets the same bits."""
    if data_size() == 1:
        return sums
    assert sums.pilots is not None
    own = (*sums.pilots, sums.total())
    whole = CrossSums()
    for one, other, total_XY in zip(*(gather_images(part[None, None])[0] for part in own), strict=True):
        whole.merge(CrossSums.of((one, other), total_XY))
    return whole


def rows_over_ranks(own_ND: Tensor) -> Tensor:
    """Return the rows of all ranks in the order of ranks, which may differ in their number of rows."""
    counts = gather_json(len(own_ND))
    padded_ND = torch.nn.functional.pad(own_ND, (0, 0, 0, max(counts) - len(own_ND)))
    parts = gather_images(padded_ND[None])[0].split(max(counts))
    return torch.cat([part_ND[:count] for part_ND, count in zip(parts, counts, strict=True)])


def ends(score: Score) -> tuple[tuple[End, End], ...]:
    """Return the three pairs whose sums a metric needs: xx, yy, xy."""
    x, y = (score.reference, score.reference_layer or score.layer), (score.arm, score.layer)
    return (x, x), (y, y), (x, y)
