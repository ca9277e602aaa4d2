"""Figures of accuracy for pairs of arms: its difference against their alignment, and that of the weights between."""

import textwrap
from collections.abc import Sequence

from matplotlib.figure import Figure

from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.plots.panel_figures import draw_panels, panels_figure
from coupled.analysis.selections import accuracy, between, pairs
from coupled.analysis.selections.accuracy import ACCURACIES
from coupled.analysis.selections.pairs import ALIGNMENTS
from coupled.analysis.selections.panels import Panel, n_of
from coupled.monitoring.commands import suggest


def alignment_accuracy(tables: FigureTables) -> Figure:
    """Return the figure of the accuracy of each arm minus that of the reference against their alignment.

    One point per arm and epoch, for h on test; rings mark the last epoch. A row of panels is left out if quality.csv
    does not have its metric, a column if test_alignment.csv does not. Raises ValueError if no panel is left.
    """
    panels = accuracy.alignment_accuracy(tables.sources, tables.looks)
    rows, columns = (list(dict.fromkeys(panel.key[place] for panel in panels)) for place in (0, 1))
    if len(panels) < max(1, len(rows) * len(columns)):
        raise _nothing_in_common(tables)
    pairs.same_ring(panels)
    size = 3.4 * len(columns) + 0.4, 0.6 + 2.9 * len(rows)
    figure = Figure(figsize=size, layout="constrained")
    cells = figure.subplots(len(rows), len(columns), squeeze=False, sharex="col", sharey="row")
    places = [(rows.index(panel.key[0]), columns.index(panel.key[1])) for panel in panels]
    draw_panels([cells[place] for place in places], panels)
    for panel, place in zip(panels, places, strict=True):
        axes = cells[place]
        axes.axhline(0, color="0.4", linewidth=0.8)
        axes.set_title(panel.short, fontsize="medium")
        axes.set_xlabel(panel.x.title if place[0] == len(rows) - 1 else "")
        axes.set_ylabel("" if place[1] else textwrap.fill(panel.y.title, 34))
    add_legend(figure, tables, n_of(panels))
    return figure


def _nothing_in_common(tables: FigureTables) -> ValueError:
    """The reason why there is no panel, or not every accuracy with every metric."""
    one = tables.sources[0]
    quality, scores = one.read("quality.csv", "value"), one.scores()
    differences = accuracy.accuracy_differences(quality, tables.reference)
    if not differences:
        metrics = [metric for metric, _ in ACCURACIES]
        command = suggest("quality", "--run-dir", str(tables.folder.parent), "--metrics", *metrics)
        return ValueError(
            f"{tables.folder / 'quality.csv'}: no rows of {' or '.join(metrics)} of h on test for '{tables.reference}'"
            f" and another arm at the same epoch; compute them with: {command}"
        )
    for name in differences:
        for metric, title in ALIGNMENTS.items():
            there = ((scores["metric"] == metric) & (scores["module"] == "h")).any()
            if there and accuracy.joined(quality, scores, name, metric).empty:
                return ValueError(f"quality.csv ({name}) and test_alignment.csv ({title}) have no epoch of h in common")
    return ValueError(f"{tables.folder / 'test_alignment.csv'}: no rows of {' or '.join(ALIGNMENTS)} of h")


def merging(tables: FigureTables) -> Figure:
    """Return the figure of the accuracy of the weights between the reference and each arm, for h.

    For each classifier of merge.csv: the accuracy on the line between both weights at the last epoch, and over epochs
    the accuracy in the middle of the line minus the mean accuracy of its two ends. Raises ValueError without rows of h
    with this reference.
    """
    panels = between.merging(tables.sources, tables.looks)
    if not panels:
        raise ValueError(f"{tables.folder / 'merge.csv'}: no rows of h with the reference '{tables.reference}'")
    return between_figure(panels, tables, width=3.4, height=2.8)


def between_figure(panels: Sequence[Panel], tables: FigureTables, **size: float) -> Figure:
    """Return a figure of panels of `selections.between`; those over epochs have a line at 0."""
    figure = panels_figure(panels, tables, short=True, y_titles=True, **size)
    for axes, panel in zip(figure.axes, panels, strict=False):
        if panel.key[0] == "over":
            axes.axhline(0, color="0.4", linewidth=0.8)
    return figure
