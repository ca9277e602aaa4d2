"""What the figures of a sweep show, as panels: mean over seeds with a band of one standard deviation."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd

from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.selections.looks import Looks
from coupled.analysis.selections.panels import EPOCHS, Axis, Panel, Series
from coupled.analysis.selections.styles import MARKERS, Style, arm_styles
from coupled.analysis.selections.words import limits, words
from coupled.analysis.tables import largest_sample, whole_encoder
from coupled.config.controls import twins
from coupled.sweep.names import spelled
from coupled.sweep.tables import details, read_definition, spread

WIDE = 5  # from this ratio of a factor's largest to its smallest value on, its axis is logarithmic


class Shown(NamedTuple):
    """The data that all figures of a sweep use."""

    factor: str | None
    others: list[str]  # further keys with several values; each combination has a row of panels
    values: list[Any]  # values of the factor, in the order of the sweep
    source: FigureTables  # arms and reference, for labels and styles
    figure: Mapping[str, Any]  # the fields of FigureSettings
    seeds: int = 1

    @property
    def looks(self) -> Looks:
        """Labels and styles of the arms."""
        return self.source.looks

    @property
    def numbers(self) -> bool:
        """Whether the values of the factor are numbers."""
        return all(isinstance(value, int | float) for value in self.values)

    @property
    def places(self) -> dict[Any, Any]:
        """Where each value of the factor is on the x axis: a text at its place in the sweep."""
        return {value: value if self.numbers else place for place, value in enumerate(self.values)}


def shown(folder: Path, rows: pd.DataFrame) -> Shown:
    """Return what the figures of the sweep in `folder` show of its rows."""
    definition = read_definition(folder)
    factor, arms, figure = definition["factor"], definition["arms"], definition["figure"]
    reference, note = figure["reference"], definition["note"]
    source = FigureTables(folder, reference, arm_styles(list(arms)), twins(arms, reference), note, arms)
    values = list(dict.fromkeys(rows[factor])) if factor else []
    seeds = rows["seed"].nunique() if "seed" in rows else 1
    return Shown(factor, further_keys(definition), values, source, figure, seeds)


def further_keys(definition: Mapping[str, Any]) -> list[str]:
    """The keys whose values distinguish points with one value of the factor."""
    factor, others = definition["factor"], []
    for group in definition["groups"]:
        several = [key for key, values in group.items() if len(values) > 1 and key != "seed"]
        apart = factor in group and len({*group[factor]}) == len(group[factor])  # a value of the factor is one point
        others += [] if apart else [key for key in several if key != factor]
    return others


def rows_of(rows: pd.DataFrame, metric: str, figure: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows that a panel shows. Raises ValueError if there are none, or if the metric is ambiguous."""
    name, _, detail = metric.partition(":")
    if metric == "weight_gap":
        part = whole_encoder(rows[(rows["table"] == "weight_gap") & (rows["metric"] == "gap")], "mean")
    else:
        part = rows[(rows["metric"] == name) & _is_or_has_none(rows["module"], figure["layer"])]
        part = part[part["split"] == figure["split"]]
        part = part[details(part) == detail] if detail else part
    part = part[_is_or_has_none(part["reference"], figure["reference"]) & part["epoch"].notna()]
    part = largest_sample(part, by="run")  # the points may have different datasets
    if part.empty:
        where = f"layer {figure['layer']}, {figure['split']} images, reference {figure['reference']}"
        raise ValueError(f"figure.metrics: no rows of '{metric}' ({where}); check `analyses` and `figure`")
    for column in (part["table"], details(part)):
        if column.nunique() > 1:
            kinds = ", ".join(sorted(map(str, column.unique())))
            raise ValueError(
                f"figure.metrics: '{metric}' is ambiguous: {kinds}; write for example {name}:{kinds.split(', ')[0]}"
            )
    return part


def _is_or_has_none(column: "pd.Series[Any]", wanted: str) -> "pd.Series[bool]":
    return (column == wanted) | column.isna()


def at_epoch(of_metrics: Mapping[str, pd.DataFrame], epoch: int | str) -> dict[str, pd.DataFrame]:
    """Return the rows of one epoch, or of the last epoch of each run. Raises ValueError if there are none."""
    found = {}
    for metric, rows in of_metrics.items():
        wanted = rows.groupby("run")["epoch"].transform("max") if epoch == "last" else epoch
        found[metric] = rows[rows["epoch"] == wanted]
        if found[metric].empty:
            epochs = sorted(rows["epoch"].astype(int).unique())
            raise ValueError(f"figure.epochs: got {epoch}; '{metric}' was measured at {epochs}")
    return found


def against_factor(shown: Shown, metric: str, rows: pd.DataFrame) -> Panel:
    """One line per arm against the factor."""
    places = list(shown.places.values())
    wide = shown.numbers and min(places) > 0 and max(places) >= WIDE * min(places)
    panel = _panel(shown, metric, Axis(str(shown.factor), log=wide), rows)
    for arm, own in _in_order(rows, "arm", shown.source.arm_names):
        values = spread(own, [shown.factor or ""])
        values = values.assign(x=values[shown.factor].map(shown.places))
        panel.series.append(_of_arm(shown, arm, values))
    return panel


def against_epochs(shown: Shown, metric: str, rows: pd.DataFrame) -> Panel:
    """One line per value of the factor for `figure.arm`; without a factor, one line per arm."""
    panel = _panel(shown, metric, EPOCHS, rows)
    if not shown.factor:
        for arm, own in _in_order(rows, "arm", shown.source.arm_names):
            panel.series.append(_of_arm(shown, arm, spread(own, ["epoch"]).rename(columns={"epoch": "x"})))
        return panel
    arm, colours, last = shown.figure["arm"], matplotlib.colormaps["viridis"], max(1, len(shown.values) - 1)
    styles = {
        value: Style(matplotlib.colors.to_hex(colours(0.85 * i / last)), "-", list(MARKERS)[i % len(MARKERS)])
        for i, value in enumerate(shown.values)
    }
    for value, own in _in_order(rows[rows["arm"] == arm], shown.factor, styles):
        means = spread(own, ["epoch"]).rename(columns={"epoch": "x"})
        panel.series.append(_series(f"{arm}, {shown.factor} = {spelled(value)}", arm, styles[value], means))
    return panel


def _panel(shown: Shown, metric: str, x: Axis, rows: pd.DataFrame) -> Panel:
    """An empty panel of a metric, whose axis ends at its possible values."""
    name, _, detail = metric.partition(":")
    if metric == "weight_gap":
        panel = Panel((metric,), metric, x, Axis("weight gap, mean over layers", low=0.0, zero=True))
    else:
        kind = "pair" if shown.figure["reference"] in {*rows["reference"]} else "arm"
        low, high = limits(name, kind)
        title = f"{words(name)} ({detail})" if detail else words(name)
        panel = Panel((metric,), metric, x, Axis(title, low=low, high=high))
    panel.count(rows, shown.figure["split"])
    return panel


def _in_order(rows: pd.DataFrame, column: str, order: Iterable[Any]) -> list[tuple[Any, pd.DataFrame]]:
    there: Sequence[Any] = list(rows[column].unique())
    return [(value, rows[rows[column] == value]) for value in order if value in there]


def _of_arm(shown: Shown, arm: str, means: pd.DataFrame) -> Series:
    reference = shown.source.reference
    style = shown.looks.style(shown.source, arm, reference)
    return _series(shown.looks.label(shown.source, arm, reference=reference), arm, style, means)


def _series(label: str, arm: str, style: Style, means: pd.DataFrame) -> Series:
    """Mean and, with several seeds, a band of one standard deviation, from the columns x, mean, sd and seeds."""
    means = means.sort_values("x")
    known = bool(means["sd"].notna().any())
    low, high = ((means["mean"] + sign * means["sd"]).tolist() if known else None for sign in (-1, 1))
    x, y = means["x"].astype(float).tolist(), means["mean"].tolist()
    return Series(label, arm, style, x, y, low, high, int(means["seeds"].max()))
