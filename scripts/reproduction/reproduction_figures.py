"""Figures of docs/reproduction.md with a point for every seed, drawn from the values of a sweep."""

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from reproduction_distances import BESIDE, CEILING, FLOOR, GREY, LABELS, SIMILARITIES
from reproduction_values import ALIGNED

from coupled.analysis.plots.drawing import plain
from coupled.analysis.selections.styles import COLOURS, MARKERS

BESIDE_MARKERS = {BESIDE[FLOOR]: ".", BESIDE[CEILING]: "x"}
AT_MOST_1 = (*SIMILARITIES, "nearest centre", "linear probe", "20 neighbours", ALIGNED)


def against(
    values: pd.DataFrame,
    factor: str,
    scores: Sequence[str],
    *,
    series: str = "",
    title: str,
    log: tuple[bool, bool] = (False, False),
    label: str = "",
    levels: pd.DataFrame | None = None,
) -> Figure:
    """One panel for each score: a point for every seed against the factor, and a line through the means.

    `series` is a column whose values are drawn in separate colours. Floor and ceiling have lines of their own; without
    series they are grey. `levels` are values of floor and ceiling that do not depend on the factor. `log` are the
    scales of the two axes.
    """
    figure = Figure(figsize=(4.4 * len(scores), 4.1), layout="constrained")
    names = list(dict.fromkeys(values[series])) if series else [""]
    lines = values["arm"].map(lambda arm: BESIDE.get(arm, "-")) if "arm" in values else pd.Series("-", values.index)
    styles = {
        (place, line): {"color": COLOURS[place] if series or line == "-" else GREY, "ls": line}
        for place in range(len(names))
        for line in ("-", *BESIDE.values())
        if line in set(lines)
    }
    of_level = {} if levels is None else {arm: _means(levels, arm) for arm in BESIDE if (levels["arm"] == arm).any()}
    whole = values if levels is None else pd.concat([values, levels[levels["arm"].isin(of_level)]])
    for axes, score in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores, strict=True):
        for (place, line), style in styles.items():
            here = (values["score"] == score) & (lines == line)
            chosen = values[here & (values[series] == names[place])] if series else values[here]
            marker = BESIDE_MARKERS.get(line, list(MARKERS)[place])
            drawn = {**style, "clip_on": False}
            axes.plot(chosen[factor], chosen["value"], **{**drawn, "ls": ""}, marker=marker, ms=4, alpha=0.6)
            mean = chosen.groupby(factor)["value"].mean()
            axes.plot(mean.index, mean, lw=2 if line == "-" else 1.2, **drawn)
        for arm, level in of_level.items():
            axes.axhline(level[score], lw=1.2, color=GREY, ls=BESIDE[arm])
        _bounds(axes, whole[whole["score"] == score]["value"], score, log[1], from_zero=False)
        plain(axes)
        if log[0]:
            axes.set_xscale("log")
            ticks = sorted(values[factor].unique())
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(label or factor)
        axes.set_title(score, fontsize="medium")
    beside = {arm: line for arm, line in BESIDE.items() if line in set(lines) or arm in of_level}
    of_nscl = "NSCL, " if set(lines) & {*BESIDE_MARKERS} else ""
    own = [f"{of_nscl}{name}" for name in names] if series else ["NSCL"] * bool(beside)
    handles = [
        Line2D([], [], lw=2, color=color, marker=marker, ms=4, label=str(name))
        for name, color, marker in zip(own, COLOURS, MARKERS, strict=False)
    ]
    handles += [
        Line2D([], [], color=GREY, ls=line, marker="" if of_level else BESIDE_MARKERS[line], ms=4, label=LABELS[arm])
        for arm, line in beside.items()
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    _title(figure, title, values)
    return figure


def _means(values: pd.DataFrame, arm: str) -> "pd.Series[float]":
    """The mean of every score of an arm."""
    return values[values["arm"] == arm].groupby("score")["value"].mean()


def points(values: pd.DataFrame, case: str, scores: Sequence[str], *, title: str) -> Figure:
    """One panel for each score: a point for every seed of every case, and a bar at their mean."""
    columns = 2 if len(scores) == 4 else min(3, len(scores))
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(4 * columns, 3.4 * rows + 0.4), layout="constrained")
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in cells[len(scores) :]:
        axes.set_visible(False)
    for axes, score in zip(cells, scores, strict=False):
        chosen = values[values["score"] == score]
        names = list(dict.fromkeys(chosen[case]))
        for place, name in enumerate(names):
            each = chosen[chosen[case] == name].sort_values("seed")["value"]
            spots = [place + 0.12 * (i - (len(each) - 1) / 2) for i in range(len(each))]
            axes.plot(spots, each, ls="", marker="o", ms=4, alpha=0.7, color=COLOURS[0], clip_on=False)
            axes.hlines(each.mean(), place - 0.3, place + 0.3, lw=2, color=COLOURS[1])
        _bounds(axes, chosen["value"], score, log=False)
        plain(axes)
        axes.set_xticks(range(len(names)), names, rotation=60 if len(names) > 4 else 20, ha="right", fontsize="small")
        axes.set_title(score, fontsize="medium")
    _title(figure, title, values, bar=True)
    return figure


def _bounds(axes: Any, drawn: "pd.Series[float]", score: str, log: bool, from_zero: bool = True) -> None:
    """Limits without impossible values: no similarity or accuracy above 1, no distance or error below 0.

    If not `from_zero`, the axis of a similarity starts below its smallest value, so that small differences are seen.
    """
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif score.startswith(AT_MOST_1):
        axes.set_ylim(min(0.0, drawn.min()) if from_zero else floor(10 * drawn.min()) / 10, 1.0)
    elif drawn.min() >= 0:
        axes.set_ylim(0.0, None)


def _title(figure: Figure, title: str, values: pd.DataFrame, bar: bool = False) -> None:
    points = f"a point each; {'bar' if bar else 'line'}: mean"
    figure.suptitle(f"{title}\nn = {values['seed'].nunique()} seeds, {points}", fontsize="medium")


def renamed(values: pd.DataFrame, column: str, names: Mapping[str, str]) -> pd.DataFrame:
    """The rows whose cell in `column` is in `names`, with the new names and in their order."""
    chosen = values[values[column].isin(names)]
    order = {name: place for place, name in enumerate(names)}
    chosen = chosen.sort_values(column, key=lambda cells: cells.map(order), kind="stable")
    return chosen.assign(**{column: chosen[column].map(names)})
