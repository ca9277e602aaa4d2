"""The figures of classifiers: reliability curves, errors on corrupted images."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import plain
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.plots.panel_figures import draw_panels
from coupled.analysis.selections import classifiers
from coupled.analysis.selections.by_name import ByName
from coupled.analysis.selections.panels import n_of


def reliability(tables: FigureTables) -> Figure:
    """Return the reliability curves of test at the last epoch: a panel for each classifier, a line for each arm.

    Below the diagonal a classifier is too confident. Bins without images have no point. The titles name the last
    epoch. Raises ValueError without a curve of test.
    """
    panels = classifiers.reliability(tables.sources, tables.looks)
    if not panels:
        raise ValueError(f"{tables.folder / 'reliability.csv'}: no curve of test to draw")
    figure = Figure(figsize=(3.2 * max(2, len(panels)), 3.9), layout="constrained")
    cells = figure.subplots(1, len(panels), squeeze=False)[0]
    draw_panels(cells, panels)
    for axes, panel in zip(cells, panels, strict=True):
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_title(panel.short.replace(", test", ",\ntest"), fontsize="medium")
    cells[0].set_ylabel(panels[0].y.title)
    add_legend(figure, tables, n_of(panels))
    return figure


def corruption_errors(tables: FigureTables) -> Figure:
    """Return errors on corrupted test images at the last epoch, over severities and for each corruption.

    On the left the mean over the corruptions that have all severities, on the right the error of each corruption, mean
    over the severities. An arm's own classifier is shown if it was measured, otherwise the probe. Raises ValueError
    without a corruption at all severities.
    """
    found = classifiers.corruption_errors(tables, tables.looks)
    if found is None:
        raise ValueError(f"{tables.folder / 'robustness.csv'}: no corruption at all severities")
    panel, of_each = found
    figure = Figure(figsize=(9.0, 1.6 + 0.3 * max(6, len(of_each.names))), layout="constrained")
    over_severities, of_corruptions = figure.subplots(1, 2)
    draw_panels([over_severities], [panel])
    over_severities.set_title(panel.short, fontsize="medium")
    _draw_by_name(of_corruptions, of_each)
    add_legend(figure, tables, n_of([panel]))
    return figure


def _draw_by_name(axes: Axes, shown: ByName) -> None:
    """Draw a point for each name and arm, the first name at the top, with the standard deviation over seeds."""
    count = len(shown.series)
    for index, series in enumerate(shown.series):
        places = np.array(series.x) + 0.6 * ((index + 0.5) / count - 0.5)  # so that intervals do not cover each other
        if series.low is not None and series.high is not None:
            axes.hlines(places, series.low, series.high, color=series.style.color, linewidth=1)
        look: dict[str, Any] = {"color": series.style.color, "marker": series.style.marker}
        axes.plot(series.y, places, linestyle="", markersize=4, label=series.label, **look)
    plain(axes)
    axes.set_yticks(range(len(shown.names)), shown.names)
    axes.invert_yaxis()
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.set_title(shown.title, fontsize="medium")
