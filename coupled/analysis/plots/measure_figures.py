"""The figures of further pair metrics: all metrics over epochs, mutual k-NN over k, the metrics of each class."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.plots.panel_figures import panels_figure
from coupled.analysis.selections import by_name, curves, pairs
from coupled.analysis.selections.panels import n_of_rows
from coupled.monitoring.commands import suggest


def pair_metrics(tables: FigureTables) -> Figure:
    """Return every pair metric of test_alignment.csv for h over epochs: a panel for each metric, a line for each arm.

    Bars are intervals over images, shaded areas standard deviations over seeds. Raises ValueError without rows of h
    with this reference.
    """
    panels = pairs.of_h_on_test(pairs.alignment(tables.sources, tables.looks, splits=("test",)))
    if not panels:
        raise ValueError(
            f"{tables.folder / 'test_alignment.csv'}: no rows of h with the reference '{tables.reference}'"
        )
    figure = panels_figure(panels, tables, short=True)
    figure.supylabel(f"h against that of {tables.reference}, test images", fontsize="medium")
    return figure


def mutual_knn(tables: FigureTables) -> Figure:
    """Return mutual_knn over the number of neighbours for h on test, at the first and the last epoch after training.

    The dotted line is the chance level k / (n - 1). Raises ValueError without rows of h with this reference.
    """
    for source in tables.sources:
        _rows(source, "test_mutual_knn.csv", "--mutual-knn", "1", "5", "10", "20", "50")
    panels = curves.mutual_knn(tables.sources, tables.looks)
    figure = panels_figure(panels, tables, short=True)
    for axes, panel in zip(figure.axes, panels, strict=True):
        k = panel.places()
        axes.set_xticks(k, [f"{each:g}" for each in k])
        axes.minorticks_off()
    figure.axes[0].set_ylabel(panels[0].y.title)
    return figure


def class_alignment(tables: FigureTables) -> Figure:
    """Return the metrics of the images of each class for h on test, at the last epoch: a panel for each metric.

    Classes are sorted by the first metric, mean over the arms, the least similar at the top. With more than 20 classes
    the ten of the lowest and the ten of the highest values are drawn. Raises ValueError without such rows.
    """
    rows = _rows(tables, "test_class_alignment.csv", "--per-class")
    epoch = rows["epoch"].max()
    rows = rows[(rows["epoch"] == epoch) & rows["arm"].isin(tables.arms(rows))]
    found, classes = by_name.class_alignment(tables, tables.looks, rows)
    shown, arms = found[0].names, len(found[0].series)
    height = 1.6 + len(shown) * (0.12 + 0.1 * arms)
    figure = Figure(figsize=(1.6 + 2.4 * len(found), height), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(found), sharey=True, squeeze=False)[0], found, strict=True):
        for index, series in enumerate(panel.series):
            places = np.array(series.x) + 0.8 * ((index + 0.5) / arms - 0.5)
            axes.barh(places, series.y, height=0.8 / arms, color=series.style.color, label=series.label)
            if series.low is not None and series.high is not None:
                axes.hlines(places, series.low, series.high, color="0.3", linewidth=1)
        axes.set_yticks(range(len(shown)), shown)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", linewidth=0.4, alpha=0.5)
        axes.locator_params(axis="x", nbins=5)
        axes.set_title(panel.title, fontsize="medium")
    figure.axes[0].invert_yaxis()
    some = "" if len(shown) == classes else f"\n{len(shown)} of {classes} classes"
    label = f"h against that of {tables.reference}, test images, epoch {epoch}{some}"
    figure.supylabel(label, fontsize="medium")
    bands = any(series.low is not None for panel in found for series in panel.series)
    add_legend(figure, tables, n_of_rows(rows, "test", tables.seeds, bands))
    return figure


def _rows(tables: FigureTables, name: str, *options: str) -> pd.DataFrame:
    """Return the rows of h with this reference of a table that `coupled alignment` writes with these options."""
    for run in tables.runs:
        if len(run.styles) > 1 and not (run.folder / name).exists():
            command = suggest("alignment", "--run-dir", str(run.folder.parent), *options)
            raise ValueError(f"{run.folder / name}: no such file; write it with: {command}")
    rows = tables.read(name, "value")
    rows = rows[(rows["reference"] == tables.reference) & (rows["module"] == "h")] if len(rows) else rows
    if rows.empty:
        raise ValueError(f"{tables.folder / name}: no rows of h with the reference '{tables.reference}'")
    return rows
