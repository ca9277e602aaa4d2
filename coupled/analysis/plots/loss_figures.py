"""Figures of losses between and within arms: the barrier along a line of weights, and sizes of gradients."""

import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import grid, line, over_epochs, plain
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.selections.panels import n_of_rows
from coupled.analysis.tables import largest_sample
from coupled.analysis.weights.barrier_rows import heights

ALIGNED = {"none": "", "permutation": ", channels matched"}
RELATIONS = {"same_image": "views of one image", "different_class": "views of two classes"}


def barrier(tables: FigureTables) -> Figure:
    """Return the figure of losses and accuracy of the weights between the reference and each arm.

    For each loss and classifier of barrier.csv, as trained and with matched channels: the values along the line at the
    last epoch, and the height of the barrier over epochs. Raises ValueError without rows with this reference.
    """
    rows = tables.barriers()
    curves = list(dict.fromkeys(zip(rows["metric"], rows["variant"].fillna(""), rows["align"], strict=True)))
    figure, panels = grid(2 * len(curves))
    last = rows["epoch"].max()
    for place, (metric, variant, align) in enumerate(curves):
        same = (rows["metric"] == metric) & (rows["variant"].fillna("") == variant) & (rows["align"] == align)
        of_metric = largest_sample(rows[same])
        along, over = panels[2 * place : 2 * place + 2]
        for arm in tables.arms(of_metric):
            own = of_metric[of_metric["arm"] == arm]
            curve = own[own["epoch"] == last].sort_values("position")
            line(along, curve["position"], curve["value"], arm, tables.styles[arm])
            height = heights(own).sort_values("epoch")
            line(over, height["epoch"], height["value"], arm, tables.styles[arm])
        plain(along)
        along.set_xlabel(f"position: 0 is {tables.reference}, 1 the arm")
        along.set_ylabel("accuracy" if variant else "loss")
        along.set_title(f"{metric}, epoch {last}{ALIGNED[align]}", fontsize="small")
        over_epochs(over)
        over.axhline(0, color="0.4", linewidth=0.8)
        over.set_title(f"barrier, {metric}{ALIGNED[align]}", fontsize="small")
    add_legend(figure, tables, n_of_rows(rows, "test", tables.seeds))
    return figure


def gradients(tables: FigureTables) -> Figure:
    """Return the figure of the mean size of a pair's gradient against its cosine, at the last epoch on test.

    One row of panels per loss; views of one image on the left, of two classes on the right. Hard positives are at the
    left end of a panel, hard negatives at the right end. Raises ValueError without rows.
    """
    rows = tables.read("gradients.csv", "value")
    rows = largest_sample(rows[(rows["split"] == "test") & (rows["gradient"] == "pair")])
    if rows.empty:
        raise ValueError(f"{tables.folder / 'gradients.csv'}: no rows of pairs of test to draw")
    rows = rows[(rows["epoch"] == rows["epoch"].max()) & rows["value"].notna()]
    losses = list(dict.fromkeys(rows["loss"]))
    figure = Figure(figsize=(7.2, 0.6 + 2.2 * len(losses)), layout="constrained")
    for panels, loss in zip(figure.subplots(len(losses), 2, squeeze=False, sharex=True), losses, strict=True):
        for axes, (relation, title) in zip(panels, RELATIONS.items(), strict=True):
            of_panel = rows[(rows["loss"] == loss) & (rows["relation"] == relation)]
            for arm in tables.arms(of_panel):
                curve = _middles(of_panel[of_panel["arm"] == arm])
                line(axes, curve["cosine"], curve["value"], arm, tables.styles[arm])
            plain(axes)
            axes.set_yscale("log")
            axes.set_title(f"{loss}, {title}", fontsize="medium")
        panels[0].set_ylabel("mean size of the gradient")
    for axes in panels:
        axes.set_xlabel("cosine of the pair")
    add_legend(figure, tables, n_of_rows(rows, "test", tables.seeds))
    return figure


def _middles(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the bins in ascending order with their middle as `cosine`."""
    return rows.assign(cosine=(rows["cosine_low"] + rows["cosine_high"]) / 2).sort_values("cosine")
