"""Charts of the weights between the reference and each arm: accuracy of merged weights, and barriers of losses."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd

from coupled.analysis.selections.accuracy import ACCURACIES
from coupled.analysis.selections.looks import Looks, Source, interval_of, of_pairs, to_the
from coupled.analysis.selections.pairs import of_reference
from coupled.analysis.selections.panels import EPOCHS, Axis, Panel, Panels
from coupled.analysis.selections.seeds import derived
from coupled.analysis.tables import largest_sample
from coupled.analysis.weights.barrier_rows import heights

ALIGNED = {"none": "", "permutation": ", channels matched"}
KEY = ["reference", "arm", "x"]
Sources = Sequence[Source]


class Curve(NamedTuple):
    """What a curve along the line between two weights shows; `align` is "" in merge.csv."""

    table: str
    metric: str
    variant: str
    align: str = ""


def merging(sources: Sources, looks: Looks, reference: str | None = None) -> list[Panel]:
    """Accuracy of h on the line between both weights, and over epochs that half way minus the mean of both ends.

    Keys: along or over, metric, variant.
    """
    panels = Panels()
    for source in sources:
        table = _rows(source, "merge.csv", reference)
        table = table[table["module"] == "h"] if len(table) else table
        for metric, variant in dict.fromkeys(zip(table["metric"], table["variant"], strict=True)) if len(table) else ():
            name, last, to = classifier_name(metric, variant), table["epoch"].max(), to_the([table])
            x = Axis(f"share a of the arm in (1 - a) {to} + a arm")
            along = f"weights between {to} and the arm, epoch {last}, {name}"
            y = Axis("accuracy on test images", low=0.0, high=1.0)
            panel = panels.panel(("along", metric, variant), along, y, x, along)
            curve = Curve("merge.csv", metric, variant)
            _add(panel, source, looks, partial(_along, curve, reference, last))
            over = f"accuracy at a = 1/2 minus the mean of both ends, {name}"
            y = Axis("difference of accuracies", low=-1.0, high=1.0)
            panel = panels.panel(("over", metric, variant), over, y, EPOCHS, over)
            _add(panel, source, looks, partial(_half_way, curve, reference))
    return panels.filled()


def barrier(sources: Sources, looks: Looks, reference: str | None = None) -> list[Panel]:
    """Losses and accuracy on the line between both weights, and the height of the barrier over epochs.

    Keys: along or over, metric, variant, align.
    """
    panels = Panels()
    for source in sources:
        table = _rows(source, "barrier.csv", reference)
        curves = zip(table["metric"], table["variant"].fillna(""), table["align"], strict=True) if len(table) else ()
        for metric, variant, align in dict.fromkeys(curves):
            last, to, curve = table["epoch"].max(), to_the([table]), Curve("barrier.csv", metric, variant, align)
            along, over = f"{metric}, epoch {last}{ALIGNED[align]}", f"barrier, {metric}{ALIGNED[align]}"
            y, x = Axis("accuracy" if variant else "loss (nats)"), Axis(f"position: 0 is {to}, 1 the arm")
            panel = panels.panel(("along", metric, variant, align), along, y, x, along)
            _add(panel, source, looks, partial(_along, curve, reference, last))
            height = Axis("lost accuracy" if variant else "height (nats)")
            panel = panels.panel(("over", metric, variant, align), over, height, EPOCHS, over)
            _add(panel, source, looks, partial(_heights, curve, reference))
    return panels.filled()


def _add(panel: Panel, source: Source, looks: Looks, compute: Callable[[Source], pd.DataFrame]) -> None:
    """Add the line of each pair without twins."""
    rows = derived(source, compute, KEY)
    several = rows["reference"].nunique() > 1
    for reference, arm, own in of_pairs(source, rows):
        if arm not in source.twins_of(reference):
            own = own.sort_values("x")
            more, interval = f"to {reference}" if several else "", interval_of(own)
            panel.series.append(looks.series(source, arm, own["x"], own["value"], more, reference, interval=interval))
            panel.count(own, "test")


def _rows(source: Source, name: str, reference: str | None) -> pd.DataFrame:
    """The rows of a table, on test if it was measured, of the most images for batch norms."""
    rows = of_reference(source.table(name), reference)
    if len(rows) and "split" in rows:
        rows = rows[rows["split"] == ("test" if (rows["split"] == "test").any() else "train")]
    return rows[rows["num_batch_norm_images"] == rows["num_batch_norm_images"].max()] if len(rows) else rows


def _of(curve: Curve, reference: str | None, source: Source) -> pd.DataFrame:
    rows = _rows(source, curve.table, reference)
    rows = rows[(rows["metric"] == curve.metric) & (rows["variant"].fillna("") == curve.variant)]
    rows = rows[rows["align"] == curve.align] if curve.align else rows[rows["module"] == "h"]
    return largest_sample(rows)


def _along(curve: Curve, reference: str | None, epoch: int, source: Source) -> pd.DataFrame:
    rows = _of(curve, reference, source)
    return rows[rows["epoch"] == epoch].assign(x=lambda at: at["position"])[[*KEY, "value", "num_images"]]


def _half_way(curve: Curve, reference: str | None, source: Source) -> pd.DataFrame:
    """The value in the middle minus the mean of both ends; without rows if one of them was not measured."""
    rows = _of(curve, reference, source)
    place = ["epoch", "reference", "arm", "num_images"]
    by_position = rows.pivot(index=place, columns="position", values="value").reindex(columns=[0.0, 0.5, 1.0])
    value = by_position[0.5] - (by_position[0.0] + by_position[1.0]) / 2
    found = value.rename("value").reset_index().dropna(subset=["value"])
    return found.assign(x=found["epoch"])[[*KEY, "value", "num_images"]]


def _heights(curve: Curve, reference: str | None, source: Source) -> pd.DataFrame:
    rows = heights(_of(curve, reference, source))
    return rows.assign(x=rows["epoch"])[[*KEY, "value", "num_images"]]


def classifier_name(metric: str, variant: str) -> str:
    """Return the name of a classifier of merge.csv in words; of a less common one, its metric and variant."""
    return ACCURACIES.get((metric, variant), f"{metric.replace('_', ' ')} ({variant})")
