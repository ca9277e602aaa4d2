"""Charts of pairs of arms over epochs: weight gap, alignment, angles, and one against the other."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from coupled.analysis.representations.layers import OUTPUTS
from coupled.analysis.selections.looks import Looks, Source, interval_of, of_pairs, to_the
from coupled.analysis.selections.panels import Axis, Floor, Panel, Panels, Ring, numbers
from coupled.analysis.selections.seeds import derived
from coupled.analysis.selections.words import METRICS, limits, value_of_equal_arms, words
from coupled.analysis.tables import largest_sample, whole_encoder

ALIGNMENTS = {"cka": "CKA", "rsa": "RSA"}
Sources = Sequence[Source]


def gap(sources: Sources, looks: Looks, reference: str | None = None) -> list[Panel]:
    """The weight gap, mean over layers, over epochs; no panel without rows."""
    return _weights(sources, looks, reference, "mean", "gap", "weight gap to {}, mean over layers")


def _weights(
    sources: Sources, looks: Looks, reference: str | None, aggregate: str, column: str, title: str, high: float = np.inf
) -> list[Panel]:
    tables = [(source, _whole(source, aggregate, reference)) for source in sources]
    panels = Panels()
    y = Axis(title.format(to_the([rows for _, rows in tables])), low=0.0, high=high, zero=True)
    panel = panels.panel((column,), column, y, short="angle of the weights" if column == "angle" else "")
    for source, rows in tables:
        add_pairs(panel, source, looks, rows, column, equal=0.0)
    return panels.filled()


def _whole(source: Source, aggregate: str, reference: str | None) -> pd.DataFrame:
    rows = source.table("weight_gap.csv")
    return of_reference(whole_encoder(rows, aggregate), reference) if len(rows) else rows


def of_reference(rows: pd.DataFrame, reference: str | None) -> pd.DataFrame:
    """The rows of a reference; all rows if it is None."""
    return rows if reference is None or rows.empty else rows[rows["reference"] == reference]


def alignment(
    sources: Sources, looks: Looks, reference: str | None = None, splits: Sequence[str] = ("test", "train")
) -> list[Panel]:
    """Every pair metric, layer and split, with the intervals that were computed. Keys: metric, layer, split."""
    panels = Panels()
    for split in splits:
        tables = [(source, of_reference(source.table(f"{split}_alignment.csv"), reference)) for source in sources]
        name = to_the([rows for _, rows in tables])
        for source, table in tables:
            if table.empty:
                continue
            table = table.sort_values("module", key=lambda layers: ~layers.isin(OUTPUTS), kind="stable")
            groups = sorted(table.groupby(["metric", "module"], sort=False), key=_rank)
            for (metric, layer), group in groups:
                low, high = limits(str(metric), "pair")
                title = f"{words(str(metric))} with {name}, {split} images, {layer}"
                key, y = (str(metric), str(layer), split), Axis(title, low=low, high=high)
                panel = panels.panel(key, f"{metric}, {layer}, {split} images", y, short=words(str(metric)))
                rows = largest_sample(group)
                panel.count(rows, split)
                add_pairs(panel, source, looks, rows, "value", value_of_equal_arms(str(metric)))
    return panels.filled()


def _rank(group: tuple[Any, pd.DataFrame]) -> tuple[bool, int, bool]:
    """The place of a metric and a layer in menus and figures: h and z first, then CKA before other metrics."""
    metric, layer = group[0]
    known = list(METRICS)
    return layer not in OUTPUTS, known.index(metric) if metric in known else len(known), layer != "h"


def add_pairs(
    panel: Panel, source: Source, looks: Looks, rows: pd.DataFrame, column: str, equal: float | None = None
) -> None:
    """Add a line for each pair, and the noise floor from `equal`, the value of equal arms, to the most distant twin.

    Of several sources the twins are grey lines, whose labels name the source.
    """
    band = equal is not None and len(looks.sources) == 1
    several = rows["reference"].nunique() > 1 if len(rows) else False
    for reference, arm, own in of_pairs(source, rows):
        if band and equal is not None and arm in source.twins_of(reference):
            _widen_floor(panel, own, column, equal)
            continue
        more, interval = f"to {reference}" if several else "", interval_of(own, column)
        line = looks.series(source, arm, own["epoch"], own[column], more, reference, interval=interval)
        panel.series.append(line)
        panel.bars = "95 % intervals over images" if interval and source.seeds == 1 else panel.bars


def _widen_floor(panel: Panel, rows: pd.DataFrame, column: str, equal: float) -> None:
    """Make the noise floor reach from `equal` to the values of a twin."""
    label = f"noise floor ({rows['reference'].iloc[0]}'s twin)"
    old = panel.floor or Floor(label, [], [], [])
    bands = {x: (low, high) for x, low, high in zip(*old[1:], strict=True)}
    for epoch, value in zip(numbers(rows["epoch"]), numbers(rows[column]), strict=True):
        low, high = bands.get(epoch, (equal, equal))
        if np.isfinite(value):
            bands[epoch] = (min(low, value), max(high, value))
    x = sorted(bands)
    label = label if old.label == label else "noise floor (twins)"
    panel.floor = Floor(label, x, [bands[each][0] for each in x], [bands[each][1] for each in x])


def drift(sources: Sources, looks: Looks, reference: str | None = None) -> list[Panel]:
    """Weight gap, CKA and RSA of h on test over epochs; a metric that was not computed has no panel."""
    gaps = gap(sources, looks, reference)
    scores = {panel.key: panel for panel in alignment(sources, looks, reference, ("test",))}
    return [
        *gaps,
        *(scores[key] for metric in ALIGNMENTS if (key := (metric, "h", "test")) in scores),
    ]


def angles(sources: Sources, looks: Looks, reference: str | None = None) -> list[Panel]:
    """Angles to the reference in degrees: of the encoder's weights as one vector, and arccos of CKA and RSA of h."""
    found = _weights(sources, looks, reference, "global", "angle", "angle of the weights to {}, degrees", 180.0)
    panels = Panels()
    tables = [(source, of_reference(source.table("test_alignment.csv"), reference)) for source in sources]
    name = to_the([rows for _, rows in tables])
    for metric, title in ALIGNMENTS.items():
        for source, table in tables:
            rows = table[(table["metric"] == metric) & (table["module"] == "h")] if len(table) else table
            if rows.empty:
                continue
            rows = largest_sample(rows)
            degrees = derived(source, partial(_arccos, metric, reference), ["epoch", "reference", "arm", "num_images"])
            y = Axis(f"arccos of {title} with {name}, test images, h, degrees", low=0.0, high=180.0, zero=True)
            panel = panels.panel((metric,), title, y, short=f"arccos of {title}, test images, h")
            panel.count(rows, "test")
            add_pairs(panel, source, looks, degrees, "angle", equal=0.0)
    return [*found, *panels.filled()]


def _arccos(metric: str, reference: str | None, source: Source) -> pd.DataFrame:
    """The angles of the embeddings of a run in degrees."""
    table = of_reference(source.table("test_alignment.csv"), reference)
    rows = largest_sample(table[(table["metric"] == metric) & (table["module"] == "h")])
    angle = np.degrees(np.arccos(rows["value"].clip(-1, 1)))
    return rows.assign(angle=angle)[["epoch", "reference", "arm", "num_images", "angle"]]


def gap_alignment(sources: Sources, looks: Looks, reference: str | None = None) -> list[Panel]:
    """CKA and RSA of h on test against the weight gap, one path per arm without twins; a ring marks the last epoch."""
    panels = Panels()
    for source in sources:
        gaps, table = _whole(source, "mean", reference), of_reference(source.table("test_alignment.csv"), reference)
        if gaps.empty or table.empty:
            continue
        for metric, title in ALIGNMENTS.items():
            rows = largest_sample(table[(table["metric"] == metric) & (table["module"] == "h")])
            rows = rows.merge(gaps[["epoch", "reference", "arm", "gap"]], on=["epoch", "reference", "arm"])
            name = to_the([rows])
            x = Axis(f"weight gap to {name}, mean over layers", low=0.0)
            low, high = limits(metric, "pair")
            y = Axis(f"{title} with {name}, test images, h", low=low, high=high)
            panel = panels.panel((metric,), title, y, x)
            panel.count(rows, "test")
            add_paths(panel, source, looks, rows, "gap", "value")
    return panels.filled()


def add_paths(
    panel: Panel, source: Source, looks: Looks, rows: pd.DataFrame, x: str, y: str, markers: bool = False
) -> None:
    """Add a path over the epochs for each pair without twins, and rings around the points of the last epoch."""
    several = rows["reference"].nunique() > 1 if len(rows) else False
    last = rows["epoch"].max() if len(rows) else 0
    for reference, arm, own in of_pairs(source, rows):
        if arm in source.twins_of(reference):
            continue
        texts = [f"epoch {epoch}" for epoch in own["epoch"]]
        more = f"to {reference}" if several else ""
        kind = "points" if markers else None
        panel.series.append(looks.series(source, arm, own[x], own[y], more, reference, kind=kind, texts=texts))  # type: ignore[arg-type]
        ends = own[own["epoch"] == last]
        label, xs, ys, arms = panel.ring or Ring(f"epoch {last}", [], [])
        label = label if label == f"epoch {last}" else "last epoch"
        panel.ring = Ring(label, [*xs, *numbers(ends[x])], [*ys, *numbers(ends[y])], [*arms, *ends["arm"]])


def same_ring(panels: Iterable[Panel]) -> None:
    """Give the rings of all panels one label: "epoch 20", or "last epoch" if they mark different epochs."""
    every = list(panels)
    labels = {panel.ring.label for panel in every if panel.ring}
    for panel in every:
        if panel.ring and len(labels) > 1:
            panel.ring = panel.ring._replace(label="last epoch")


def lacking(panels: Iterable[Panel]) -> list[str]:
    """The metrics of `ALIGNMENTS` without a panel."""
    there = {panel.key[0] for panel in panels}
    return [metric for metric in ALIGNMENTS if metric not in there]


def of_h_on_test(panels: Iterable[Panel]) -> list[Panel]:
    """The panels of h on test images."""
    return [panel for panel in panels if panel.key[1:] == ("h", "test")]
