"""Figures of losses between and within arms: the barrier along a line of weights, and sizes of gradients."""

from matplotlib.figure import Figure

from coupled.analysis.plots.accuracy_figures import between_figure
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.plots.panel_figures import draw_panels
from coupled.analysis.selections import between, curves
from coupled.analysis.selections.panels import n_of


def barrier(tables: FigureTables) -> Figure:
    """Return the figure of losses and accuracy of the weights between the reference and each arm.

    For each loss and classifier of barrier.csv, as trained and with matched channels: the values along the line at the
    last epoch, and the height of the barrier over epochs. Raises ValueError without rows with this reference.
    """
    return between_figure(between.barrier(tables.sources, tables.looks), tables, width=3.0)


def gradients(tables: FigureTables) -> Figure:
    """Return the figure of the mean size of a pair's gradient against its cosine, at the last epoch on test.

    One row of panels per loss; views of one image on the left, of two classes on the right. Hard positives are at the
    left end of a panel, hard negatives at the right end. Raises ValueError without rows.
    """
    panels = curves.gradients(tables.sources, tables.looks)
    if not panels:
        raise ValueError(f"{tables.folder / 'gradients.csv'}: no rows of pairs of test to draw")
    losses, relations = list(dict.fromkeys(panel.key[0] for panel in panels)), list(curves.RELATIONS)
    figure = Figure(figsize=(7.2, 0.6 + 2.2 * len(losses)), layout="constrained")
    cells = figure.subplots(len(losses), 2, squeeze=False, sharex=True)
    chosen = [cells[losses.index(panel.key[0]), relations.index(panel.key[1])] for panel in panels]
    draw_panels(chosen, panels)
    for axes, panel in zip(chosen, panels, strict=True):
        axes.set_title(panel.short, fontsize="medium")
        axes.set_xlabel(panel.x.title if axes in cells[-1] else "")
    for axes in cells[:, 0]:
        axes.set_ylabel(panels[0].y.title)
    add_legend(figure, tables, n_of(panels))
    return figure
