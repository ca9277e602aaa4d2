"""The figure of alignment and weight gap against an option by which arms of one objective differ."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.plots.panel_figures import draw_panels
from coupled.analysis.selections import pairs
from coupled.analysis.selections.options import LEAST, OptionPath, against_option, option_paths
from coupled.analysis.selections.pairs import ALIGNMENTS
from coupled.analysis.selections.panels import Panel, n_of


def options(tables: FigureTables) -> Figure:
    """Return the figure of CKA, RSA and weight gap against each option of `option_paths`, at the last epoch.

    Bars are confidence intervals, if the table has them; shaded areas one standard deviation over seeds. Panels without
    rows are left out. Raises ValueError without a path, or without rows of h in test_alignment.csv.
    """
    paths = option_paths(tables.arm_settings)
    if not paths:
        raise ValueError(f"the run has no {LEAST} arms that differ only in one number of their objective")
    scores = pairs.of_h_on_test(pairs.alignment(tables.sources, tables.looks, splits=("test",)))
    panels = [panel for metric in ALIGNMENTS for panel in scores if panel.key[0] == metric]
    if not panels:
        raise ValueError(f"{tables.folder / 'test_alignment.csv'}: no rows of {' or '.join(ALIGNMENTS)} of h")
    if all((run.folder / "weight_gap.csv").exists() for run in tables.runs):
        panels += pairs.gap(tables.sources, tables.looks)
    epochs = ", ".join(sorted({f"{max(panel.places()):g}" for panel in panels}))
    return options_figure(paths, panels, f"compared with {tables.reference}, epoch {epochs}\n{n_of(panels)}")


def options_figure(paths: Sequence[OptionPath], panels: Sequence[Panel], title: str) -> Figure:
    """Return a figure with a row for each path and a column for each panel over epochs."""
    figure = Figure(figsize=(3.3 * len(panels) + 0.2, 2.7 * len(paths) + 0.4), layout="constrained")
    grid = figure.subplots(len(paths), len(panels), squeeze=False, sharey="col")
    drawn = [against_option(path, panel) for path in paths for panel in panels]
    draw_panels(list(grid.flat), drawn)
    for axes, panel in zip(grid[0], panels, strict=True):
        axes.set_title(panel.y.title, fontsize="medium")
    for axes, path in zip(grid[:, 0], paths, strict=True):
        handles, labels = axes.get_legend_handles_labels()
        if path.beside and handles:
            axes.legend(handles, labels, frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure
