"""The figures of a sweep: the mean over seeds with a band of plus and minus one standard deviation.

A sweep over seeds alone has a figure against options of objectives, too, if three or more arms have different numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from coupled.analysis.plots.drawing import over_epochs, plain, save
from coupled.analysis.plots.option_figures import option_paths, options_figure
from coupled.analysis.plots.panel_figures import draw_series
from coupled.analysis.selections.panels import Series
from coupled.analysis.selections.styles import MARKERS, Style, arm_styles
from coupled.analysis.tables import largest_sample, whole_encoder
from coupled.config.controls import twins
from coupled.sweep.names import spelled
from coupled.sweep.tables import details, read_definition, spread

TITLES = {"cka": "CKA", "rsa": "RSA", "weight_gap": "weight gap, mean over layers"}
WIDE = 5  # from this ratio of a factor's largest to its smallest value on, its axis is logarithmic
GREY = Style("0.55", ":", "x")


class Shown(NamedTuple):
    """The data that all figures of a sweep use."""

    factor: str | None
    others: list[str]  # further keys with several values; each combination has a row of panels
    values: list[Any]  # values of the factor, in the order of the sweep
    styles: dict[str, Style]
    figure: Mapping[str, Any]  # the fields of FigureSettings
    note: str = ""  # the settings that arms do not share
    seeds: int = 1


def draw(folder: Path, rows: pd.DataFrame) -> list[Path]:
    """Write the figures of the sweep in `folder` from the rows that `collect` returned; return their paths.

    Raises ValueError if the rows lack a metric or an epoch of the figure's settings.
    """
    shown = _shown(read_definition(folder), rows)
    panels = {metric: _panel(rows, metric, shown.figure) for metric in shown.figure["metrics"]}
    written = []
    if shown.factor:
        name = shown.factor.replace(".", "_")
        for epoch in shown.figure["epochs"]:
            suffix = "" if epoch == "last" else f"_epoch{epoch}"
            written += save(
                _figure(shown, _at_epoch(panels, epoch), _against_factor),
                folder / "figures" / (name + suffix),
                shown.note,
            )
    if any(part["epoch"].nunique() > 1 for part in panels.values()):
        written += save(_figure(shown, panels, _against_epochs), folder / "figures" / "epochs", shown.note)
    paths = [] if shown.factor else option_paths(read_definition(folder)["arms"])
    if paths:
        figure = options_figure(paths, _means_of_arms(panels), _about(shown))
        written += save(figure, folder / "figures" / "options", shown.note)
    return written


def _means_of_arms(panels: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return mean and band of each arm over seeds at the last epoch, by the title of the panel."""
    found = {}
    for metric, rows in _at_epoch(panels, "last").items():
        of_arms = spread(rows, ["arm"]).rename(columns={"mean": "value"})
        low, high = of_arms["value"] - of_arms["sd"], of_arms["value"] + of_arms["sd"]
        found[TITLES.get(metric, metric)] = of_arms.assign(low=low, high=high)
    return found


def _shown(definition: Mapping[str, Any], rows: pd.DataFrame) -> Shown:
    factor, arms, figure = definition["factor"], definition["arms"], definition["figure"]
    others = []
    for group in definition["groups"]:
        several = [key for key, values in group.items() if len(values) > 1 and key != "seed"]
        apart = factor in group and len({*group[factor]}) == len(group[factor])  # a value of the factor is one point
        others += [] if apart else [key for key in several if key != factor]
    styles = {**arm_styles(list(arms)), **dict.fromkeys(twins(arms, figure["reference"]), GREY)}
    values = list(dict.fromkeys(rows[factor])) if factor else []
    seeds = rows["seed"].nunique() if "seed" in rows else 1
    return Shown(factor, others, values, styles, figure, definition["note"], seeds)


def _panel(rows: pd.DataFrame, metric: str, figure: Mapping[str, Any]) -> pd.DataFrame:
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


def _at_epoch(panels: Mapping[str, pd.DataFrame], epoch: int | str) -> dict[str, pd.DataFrame]:
    """Return the rows of one epoch, or of the last epoch of each run. Raises ValueError if there are none."""
    found = {}
    for metric, rows in panels.items():
        wanted = rows.groupby("run")["epoch"].transform("max") if epoch == "last" else epoch
        found[metric] = rows[rows["epoch"] == wanted]
        if found[metric].empty:
            epochs = sorted(rows["epoch"].astype(int).unique())
            raise ValueError(f"figure.epochs: got {epoch}; '{metric}' was measured at {epochs}")
    return found


def _figure(shown: Shown, panels: Mapping[str, pd.DataFrame], fill: Any) -> Figure:
    """Draw one column of panels per metric and one row per combination of the other keys."""
    first = next(iter(panels.values()))
    combinations = (
        list(first[shown.others].drop_duplicates().itertuples(index=False, name=None)) if shown.others else [()]
    )
    figure = Figure(figsize=(3.3 * len(panels) + 0.2, 2.7 * len(combinations) + 0.5), layout="constrained")
    grid = figure.subplots(len(combinations), len(panels), squeeze=False, sharey="col")
    for axes_of_row, values in zip(grid, combinations, strict=True):
        for axes, (metric, rows) in zip(axes_of_row, panels.items(), strict=True):
            for key, value in zip(shown.others, values, strict=True):
                rows = rows[rows[key] == value]
            fill(shown, axes, rows)
            title = TITLES.get(metric, metric)
            axes.set_title(title if axes in grid[0] else "", fontsize="medium")
        label = "\n".join(f"{key} = {spelled(value)}" for key, value in zip(shown.others, values, strict=True))
        axes_of_row[0].set_ylabel(label)
    for axes, metric in zip(grid[0], panels, strict=True):
        if metric == "weight_gap":
            axes.set_ylim(bottom=0)  # after all panels of the column are drawn: setting one limit fixes the other
    _legend(shown, figure)
    return figure


def _legend(shown: Shown, figure: Figure) -> None:
    """Draw one legend above all panels. Its title names the reference arm, the layer, the split and the band."""
    found = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    look: dict[str, Any] = {"title": _about(shown), "ncols": 6, "frameon": False, "handlelength": 3.5}
    figure.legend(found.values(), found.keys(), loc="outside upper center", **look)


def _about(shown: Shown) -> str:
    reference, layer, split = (shown.figure[key] for key in ("reference", "layer", "split"))
    seeds = f"mean and one standard deviation over n = {shown.seeds} seeds" if shown.seeds > 1 else "one seed"
    return f"compared with {reference}, layer {layer}, {split} images; {seeds}"


def _against_factor(shown: Shown, axes: Axes, rows: pd.DataFrame) -> None:
    """Draw one line per arm."""
    numbers = all(isinstance(value, int | float) for value in shown.values)
    places = {value: value if numbers else place for place, value in enumerate(shown.values)}
    for arm, own in _in_order(rows, "arm", shown.styles):
        values = spread(own, [shown.factor or ""])
        values = values.assign(x=values[shown.factor].map(places)).sort_values("x")
        floor = f" (twin of {shown.figure['reference']}: the noise floor)" if shown.styles[arm] == GREY else ""
        _curve(axes, values, arm + floor, shown.styles[arm])
    plain(axes)
    if numbers and min(places.values()) > 0 and max(places.values()) >= WIDE * min(places.values()):
        axes.set_xscale("log")
    axes.set_xticks(list(places.values()), [spelled(value) for value in places])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(str(shown.factor))


def _against_epochs(shown: Shown, axes: Axes, rows: pd.DataFrame) -> None:
    """Draw one line per value of the factor for `figure.arm`; without a factor, one line per arm."""
    styles = shown.styles
    column = "arm"
    if shown.factor:
        column, arm = shown.factor, shown.figure["arm"]
        rows = rows[rows["arm"] == arm]
        colours = matplotlib.colormaps["viridis"]
        last = max(1, len(shown.values) - 1)
        styles = {
            value: Style(matplotlib.colors.to_hex(colours(0.85 * i / last)), "-", list(MARKERS)[i % len(MARKERS)])
            for i, value in enumerate(shown.values)
        }
    for value, own in _in_order(rows, column, styles):
        label = f"{shown.figure['arm']}, {column} = {spelled(value)}" if shown.factor else value
        _curve(axes, spread(own, ["epoch"]).rename(columns={"epoch": "x"}).sort_values("x"), label, styles[value])
    over_epochs(axes)


def _in_order(rows: pd.DataFrame, column: str, order: Iterable[Any]) -> list[tuple[Any, pd.DataFrame]]:
    there: Sequence[Any] = list(rows[column].unique())
    return [(value, rows[rows[column] == value]) for value in order if value in there]


def _curve(axes: Axes, values: pd.DataFrame, label: str, style: Style) -> None:
    """Draw the mean and, with several seeds, a band of one standard deviation around it."""
    known = bool(values["sd"].notna().any())
    low, high = ((values["mean"] + sign * values["sd"]).tolist() if known else None for sign in (-1, 1))
    x, y, seeds = values["x"].tolist(), values["mean"].tolist(), int(values["seeds"].max())
    draw_series(axes, Series(label, "", style, x, y, low, high, seeds))
