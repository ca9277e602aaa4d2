"""Figures of collapse.csv over epochs: spectra of each arm, and the criteria and norms of the duality."""

import textwrap
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure

from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.plots.panel_figures import draw_panels, panels_figure
from coupled.analysis.selections import arms
from coupled.analysis.selections.panels import Panel, n_of
from coupled.analysis.selections.styles import Style

COLOURS = "viridis_r"
LETTERS = 11  # of the label of the colours, in an inch
BAR: dict[str, Any] = {"location": "top", "aspect": 40, "fraction": 0.02, "shrink": 0.5}


def spectra(tables: FigureTables) -> Figure:
    """Return the figure of the largest eigenvalues over epochs, one row of panels per arm, one line per component.

    For arms with a predictor: F = E[f f^T] of its inputs f, its matrix W, and the cosine of F's eigenvectors u and W u
    (Fig. 2 of arXiv 2102.06810). A column without rows is left out. Raises ValueError without any.
    """
    panels = arms.spectra_over_epochs(tables, tables.looks)
    if not panels:
        raise ValueError(f"{tables.folder / 'collapse.csv'}: no spectra of test to draw")
    rows, columns = ({panel.key[0] for panel in panels}, {panel.key[1:] for panel in panels})
    colours = ScalarMappable(Normalize(1, max(float(each.label) for panel in panels for each in panel.series)), COLOURS)
    figure = Figure(figsize=(2.6 * len(columns) + 0.8, 1.9 * len(rows) + 0.5), layout="constrained")
    cells = list(figure.subplots(len(rows), len(columns), squeeze=False, sharey="col").flat)
    draw_panels(cells, [_coloured(panel, colours) for panel in panels])
    for axes, panel in zip(cells, panels, strict=True):
        axes.set_visible(bool(panel.series))
        axes.set_title(panel.short, fontsize="small")
    gap = 0.3 / figure.get_size_inches()[1]
    label = textwrap.fill(f"component, 1 is the largest; {n_of(panels)}", int(LETTERS * figure.get_size_inches()[0]))
    figure.colorbar(colours, ax=cells, label=label, pad=gap, **BAR)
    return figure


def _coloured(panel: Panel, colours: ScalarMappable) -> Panel:
    """The panel with a colour for each component."""
    series = [
        replace(each, style=Style(to_hex(colours.to_rgba(np.array([float(each.label)]))[0]), "-", "o"))
        for each in panel.series
    ]
    return replace(panel, series=series)


def duality(tables: FigureTables) -> Figure:
    """Return the figure of the sample- and dimension-contrastive criteria and of the norms over epochs.

    L_nc + sum_j |k_j|^4 = L_c + sum_i |z_i|^4 (arXiv 2206.02574, theorem 3.3). Raises ValueError without rows of them.
    """
    panels = arms.duality(tables.sources, tables.looks)
    if not panels:
        raise ValueError(f"{tables.folder / 'collapse.csv'}: no criteria of test to draw")
    return panels_figure(panels, tables)
