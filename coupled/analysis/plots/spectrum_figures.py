"""Figures of collapse.csv over epochs: spectra of each arm, and the criteria and norms of the duality."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import over_epochs
from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.plots.panel_figures import panels_figure
from coupled.analysis.selections import arms
from coupled.analysis.selections.panels import n_of_rows
from coupled.analysis.tables import largest_sample

SPECTRA = {  # module, metric -> title of the column of panels
    ("h", "eigenvalue"): "covariance of h",
    ("z", "eigenvalue"): "covariance of z",
    ("predictor", "correlation_eigenvalue"): "F of the predictor's inputs",
    ("predictor", "predictor_singular_value"): "singular values of W",
    ("predictor", "eigenspace_alignment"): "cosine of u and W u",
}
BAR: dict[str, Any] = {"location": "top", "aspect": 40, "fraction": 0.02, "shrink": 0.5}
LINEAR = ("eigenspace_alignment",)  # of the y axis; eigenvalues are drawn on a log scale


def spectra(tables: FigureTables) -> Figure:
    """Return the figure of the largest eigenvalues over epochs, one row of panels per arm, one line per component.

    For arms with a predictor: F = E[f f^T] of its inputs f, its matrix W, and the cosine of F's eigenvectors u and W u
    (Fig. 2 of arXiv 2102.06810). A column without rows is left out. Raises ValueError without any.
    """
    rows = _of_test(tables)
    groups = dict(iter(rows.dropna(subset=["component"]).groupby(["module", "metric"])))
    panels = {title: groups[key] for key, title in SPECTRA.items() if key in groups}
    if not panels:
        raise ValueError(f"{tables.folder / 'collapse.csv'}: no spectra of test to draw")
    shown = tables.arms(pd.concat(panels.values()))
    colours = ScalarMappable(Normalize(1, max(each["component"].max() for each in panels.values())), "viridis_r")
    figure = Figure(figsize=(2.6 * len(panels) + 0.8, 1.9 * len(shown) + 0.5), layout="constrained")
    cells = figure.subplots(len(shown), len(panels), squeeze=False, sharey="col")
    linear = [title for (_, metric), title in SPECTRA.items() if metric in LINEAR]
    for of_arm, arm in zip(cells, shown, strict=True):
        for axes, (title, of_panel) in zip(of_arm, panels.items(), strict=True):
            _spectrum(axes, of_panel[of_panel["arm"] == arm], colours)
            axes.set_yscale("linear" if title in linear else "log")
            axes.set_title(f"{arm}: {title}", fontsize="small")
    figure.colorbar(
        colours,
        ax=list(cells.flat),
        label=f"component, 1 is the largest; {n_of_rows(rows, 'test', tables.seeds)}",
        **BAR,
    )
    return figure


def _spectrum(axes: Axes, rows: pd.DataFrame, colours: ScalarMappable) -> None:
    """Draw the components of an arm over epochs; without rows hide the axes."""
    axes.set_visible(bool(len(rows)))
    for component, curve in rows.sort_values("epoch").groupby("component"):
        style: dict[str, Any] = {"color": colours.to_rgba(np.array([component]))[0], "linewidth": 1}
        axes.plot(curve["epoch"], curve["value"].where(curve["value"] != 0), marker="o", markersize=2, **style)
    over_epochs(axes)


def duality(tables: FigureTables) -> Figure:
    """Return the figure of the sample- and dimension-contrastive criteria and of the norms over epochs.

    L_nc + sum_j |k_j|^4 = L_c + sum_i |z_i|^4 (arXiv 2206.02574, theorem 3.3). Raises ValueError without rows of them.
    """
    panels = arms.duality(tables.sources, tables.looks)
    if not panels:
        raise ValueError(f"{tables.folder / 'collapse.csv'}: no criteria of test to draw")
    return panels_figure(panels, tables)


def _of_test(tables: FigureTables) -> pd.DataFrame:
    rows = tables.read("collapse.csv", "value")
    return largest_sample(rows[rows["split"] == "test"])
