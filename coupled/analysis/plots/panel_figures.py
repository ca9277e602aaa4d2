"""Draws panels of `selections` with matplotlib."""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Affine2D

from coupled.analysis.plots.drawing import grid, over_epochs, plain
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.selections.panels import MARGIN, Axis, Floor, Panel, Series, as_drawn, n_of, spans_decades

LETTERS = 13  # of a title, in an inch
BAND: dict[str, Any] = {"facecolor": "0.85", "edgecolor": "0.6", "linewidth": 3, "zorder": 1}


def panels_figure(
    panels: Sequence[Panel],
    tables: FigureTables,
    width: float = 2.6,
    height: float = 2.4,
    short: bool = False,
    y_titles: bool = False,
    **grids: Any,
) -> Figure:
    """Return a figure of these panels with one legend, whose title has the numbers of images and seeds.

    With `short` the titles are the short ones of panels that share layer and split; with `y_titles` the y axes have
    titles, too.
    """
    figure, cells = grid(len(panels), width, height, **grids)
    draw_panels(cells, panels)
    for axes, panel in zip(cells, panels, strict=True):
        title = panel.short if short else panel.y.title
        room = width - (0.5 if y_titles else 0)  # inches; the title of the y axis takes the rest
        axes.set_title(textwrap.fill(title, int(LETTERS * room)), fontsize="medium")
        axes.set_ylabel(panel.y.title if y_titles else "")
    add_legend(figure, tables, n_of(panels))
    return figure


def draw_panels(cells: Sequence[Axes], panels: Sequence[Panel]) -> None:
    """Draw noise floor, series, rings and axes of panels; no title and no label of the y axis.

    Series of a single epoch are drawn side by side. Limits are set at the end, because panels may share an axis.
    """
    for axes, panel in zip(cells, panels, strict=True):
        _draw(axes, as_drawn(panel))
    for axes, panel in zip(cells, panels, strict=True):
        _limit(panel.x, axes.set_xscale, axes.get_xlim, axes.set_xlim, axes.xaxis)
        if ticks := panel.ticks():
            axes.set_xlim(ticks[0] / MARGIN, ticks[-1] * MARGIN)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
        _limit(panel.y, axes.set_yscale, axes.get_ylim, axes.set_ylim, axes.yaxis, panel.decades())


def _draw(axes: Axes, panel: Panel) -> None:
    if panel.floor:
        _draw_floor(axes, panel.floor)
    for series, shift in zip(panel.series, panel.shifts(), strict=True):
        draw_series(axes, series, shift)
    if panel.ring:
        style: dict[str, Any] = {"marker": "o", "s": 110, "facecolor": "none", "edgecolor": "0.4", "linewidth": 1}
        axes.scatter(panel.ring.x, panel.ring.y, label=panel.ring.label, clip_on=False, **style)
    if panel.x.whole:
        over_epochs(axes)
        if (epoch := panel.only_epoch) is not None:
            axes.set_xlim(epoch - 0.5, epoch + 0.5)
            axes.set_xticks([epoch], [f"{epoch:g}"])
    else:
        plain(axes)
    axes.set_xlabel(panel.x.title)


def draw_series(axes: Axes, series: Series, shift: float = 0.0) -> None:
    """Draw a line with about ten markers, or points, and the interval as band or bars; `shift` moves it along x."""
    style = series.style
    moved: dict[str, Any] = {"transform": Affine2D().translate(shift, 0) + axes.transData} if shift else {}
    if series.low is not None and series.high is not None and np.isfinite(series.low).any():
        if series.has_band:
            axes.fill_between(series.x, series.low, series.high, color=style.color, alpha=0.15, linewidth=0)
        else:
            axes.vlines(series.x, series.low, series.high, color=style.color, linewidth=1, **moved)
    if series.kind == "points":
        look: dict[str, Any] = {"color": style.color, "marker": style.marker}
        axes.scatter(series.x, series.y, s=16, label=series.label, clip_on=False, **look, **moved)
        return
    look = style._asdict() if series.kind == "line" else style._asdict() | {"marker": ""}
    every = max(1, len(series.x) // 10)
    axes.plot(series.x, series.y, label=series.label, markersize=4, markevery=every, **look, **moved)


def _draw_floor(axes: Axes, floor: Floor) -> None:
    axes.fill_between(floor.x, floor.low, floor.high, label=floor.label, **BAND)


def _limit(
    axis: Axis,
    scale: Callable[..., Any],
    get: Callable[[], Any],
    limit: Callable[..., Any],
    ticks: Any,
    decades: tuple[float, float] | None = None,
) -> None:
    """Set scale and limits: no impossible values; ticks of a log axis at powers of ten, if it has two."""
    if axis.log:
        scale("log")
        low, high = get()
        if decades:  # panels may share the axis
            low, high = min(low, decades[0]), max(high, decades[1])
            limit(low, high)
        if spans_decades(low, high):
            ticks.set_major_locator(LogLocator(10, subs=(1.0,)))
            ticks.set_minor_locator(NullLocator())
            ticks.set_minor_formatter(NullFormatter())
        return
    low, high = get()
    margin = 0.02 * (high - low)  # a line at the limit is whole
    if axis.zero:
        limit(0, None if low <= 0 else 1.05 * high)
    elif low < axis.low:
        limit(axis.low - margin, None)
    if high > axis.high:
        limit(None, axis.high + margin)
