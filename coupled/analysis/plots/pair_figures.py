"""The figures that compare arms with the reference: weight gap and alignment, over epochs and layers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import grid
from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.plots.panel_figures import panels_figure
from coupled.analysis.selections import layers, pairs
from coupled.analysis.selections.matrix import cka_of_pairs
from coupled.analysis.selections.pairs import ALIGNMENTS
from coupled.analysis.selections.panels import n_of_rows
from coupled.monitoring.commands import suggest

WIDE: dict[str, Any] = {"width": 3.2, "height": 2.8}  # size of a panel over epochs


def drift(tables: FigureTables) -> Figure:
    """Return the figure of weight gap, CKA and RSA over epochs, with the noise floor of the reference's twins.

    A metric that was not computed has no panel.
    """
    return panels_figure(pairs.drift(tables.sources, tables.looks), tables, **WIDE)


def missing_panels(tables: FigureTables) -> str:
    """Return a line on the metrics that test_alignment.csv lacks, with the command that adds them; "" if complete.

    Without rows of this reference there is no line, because the figures that need them say so.
    """
    try:
        computed = pairs.of_h_on_test(pairs.alignment(tables.sources, tables.looks, splits=("test",)))
    except ValueError:
        return ""
    lacking = pairs.lacking(computed)
    if not lacking:
        return ""
    names, table = " and ".join(ALIGNMENTS[metric] for metric in lacking), tables.folder / "test_alignment.csv"
    return f"no panels of {names}: {table} has no such rows of h; add them with: {_command(tables, lacking)}"


def _command(tables: FigureTables, metrics: Sequence[str]) -> str:
    """Return the command line that computes these metrics of h on test."""
    where = ("--run-dir", str(tables.folder.parent), "--reference", tables.reference)
    return suggest("alignment", *where, "--split", "test", "--layers", "h", "--metrics", *metrics)


def layers_alignment(tables: FigureTables) -> Figure:
    """Return heat maps of CKA by layer and epoch, one per arm. Raises ValueError without rows of CKA."""
    scores = tables.table("test_alignment.csv")
    scores = scores[scores["metric"] == "cka"]
    if scores.empty:
        raise ValueError(f"{tables.folder / 'test_alignment.csv'}: no rows of CKA with '{tables.reference}'")
    return _heat_maps(layers.of_scores(tables, scores, "test"), max(1.0, float(scores["value"].max())))


def layers_gap(tables: FigureTables) -> Figure:
    """Return heat maps of the weight gap by layer and epoch, one per arm; by stage, if there are many layers.

    Raises ValueError if the table has no rows of layers.
    """
    maps = layers.of_weights(tables, tables.gaps(), "gap")
    if not maps:
        raise ValueError(f"{tables.folder / 'weight_gap.csv'}: no rows of layers with '{tables.reference}'")
    return _heat_maps(replace(maps[0], low=0.0))


def _heat_maps(maps: layers.Maps, high: float | None = None) -> Figure:
    """Return one map per arm with a common colour scale up to `high`, first layer at the top, as in the report."""
    high = maps.high if high is None else high
    figure, panels = grid(len(maps.cells), width=2.9, height=max(2.2, 0.8 + 0.3 * len(maps.layers)), sharey=True)
    for axes, (arm, cells) in zip(panels, maps.cells.items(), strict=True):
        image = axes.imshow(cells, aspect="auto", cmap="viridis", vmin=maps.low, vmax=high)
        ticks = np.unique(np.linspace(0, len(maps.epochs) - 1, min(6, len(maps.epochs))).astype(int))
        axes.set_xticks(ticks, [str(maps.epochs[i]) for i in ticks])
        axes.set_yticks(range(len(maps.layers)), maps.layers)
        axes.set_title(arm, fontsize="medium")
        axes.set_xlabel("epoch")
    for axes in panels[:: panels[0].get_subplotspec().get_gridspec().ncols]:  # type: ignore[union-attr]
        axes.set_ylabel(maps.rows)
    extend: Any = "max" if maps.cut else "neither"
    text = f"{maps.title}\n{layers.CUT}" if maps.cut else maps.title
    figure.colorbar(image, ax=figure.axes, label=text, fraction=0.05, extend=extend)
    figure.suptitle("; ".join(filter(None, (maps.n, layers.largest_deviation(maps)))), fontsize="small")
    return figure


def gap_alignment(tables: FigureTables) -> Figure:
    """Return the figure of alignment against weight gap, one path per arm; rings mark the last epoch.

    A metric that was not computed has no panel. Raises ValueError if no epoch has both.
    """
    panels = pairs.gap_alignment(tables.sources, tables.looks)
    if not panels:
        raise ValueError(
            f"{tables.folder}: weight_gap.csv and test_alignment.csv have no epoch of h in common; compute it with:"
            f" {_command(tables, list(ALIGNMENTS))}"
        )
    pairs.same_ring(panels)
    return panels_figure(panels, tables, width=3.8, height=2.8)


def angles(tables: FigureTables) -> Figure:
    """Return the figure of the angles of weights and representations to the reference over epochs, in degrees.

    The angle of the weights is that of the encoder's weights as one vector. The angle of the representations is arccos
    of CKA and of RSA, which are cosines of two vectors; a metric that was not computed has no panel. Source: arXiv
    2510.08852 opens with such angles; its definition of the weights' angle is not known.
    """
    for each in tables.sources:
        each.gaps("angle")  # a table without the column is reported
    figure = panels_figure(pairs.angles(tables.sources, tables.looks), tables, short=True, sharey=True, **WIDE)
    figure.axes[0].set_ylabel(f"degrees to {tables.reference}")
    return figure


def matrix(tables: FigureTables) -> Figure:
    """Return the matrix of CKA of h on test for every pair of arms, at the last epoch."""
    every_pair = suggest("alignment", "--run-dir", str(tables.folder.parent), "--compare", "all")
    return alignment_matrix(tables.read("test_alignment.csv", "value"), list(tables.styles), every_pair, tables.seeds)


def alignment_matrix(
    rows: pd.DataFrame, order: Sequence[str], command: str = "alignment --compare all", seeds: int = 1
) -> Figure:
    """Return the symmetric matrix of CKA of h from rows of test_alignment.csv, at the last epoch, largest sample.

    A cell of several seeds has the mean and, with a column `value_sd`, the standard deviation. Raises ValueError for
    fewer than three arms, and for a pair without a score; the message names `command`, which computes it.
    """
    shown = cka_of_pairs(rows, order, command)
    scores_AA, deviations_AA = shown.scores_AA, shown.deviations_AA
    side = 1.6 + (0.5 if deviations_AA is None else 0.6) * len(shown.arms)
    figure = Figure(figsize=(side + 0.6, side), layout="compressed")
    axes = figure.subplots()
    lowest = float(np.nanmin(scores_AA))
    image = axes.imshow(scores_AA, cmap="viridis", vmin=lowest, vmax=1)
    axes.set_xticks(range(len(shown.arms)), shown.arms, rotation=90)
    axes.set_yticks(range(len(shown.arms)), shown.arms)
    n = n_of_rows(shown.rows, "test", seeds, deviations_AA is not None).replace("; ", "\n")
    axes.set_title(f"CKA of h, test images, epoch {shown.epoch}\n{n}", fontsize="medium")
    for (row, column), value in np.ndenumerate(scores_AA):
        dark = value < lowest + 0.6 * (1 - lowest)
        text = "-" if np.isnan(value) else f"{value:.2f}".removeprefix("0")
        if deviations_AA is not None and row != column and np.isfinite(deviations_AA[row, column]):
            text += f"\n±{deviations_AA[row, column]:.2f}".replace("±0.", "±.")
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    figure.colorbar(image, ax=axes, shrink=0.7)
    return figure
