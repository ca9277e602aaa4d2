"""The figures of further pair metrics: all metrics over epochs, mutual k-NN over k, the metrics of each class."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import grid, line, plain
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.plots.panel_figures import panels_figure
from coupled.analysis.selections import pairs
from coupled.analysis.selections.panels import n_of_rows
from coupled.analysis.tables import largest_sample
from coupled.monitoring.commands import suggest

MOST_CLASSES = 20  # with more classes, the ten of the lowest and the ten of the highest values are drawn


def pair_metrics(tables: FigureTables) -> Figure:
    """Return every pair metric of test_alignment.csv for h over epochs: a panel for each metric, a line for each arm.

    Shaded areas are intervals. Raises ValueError without rows of h with this reference.
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
    rows = largest_sample(_rows(tables, "test_mutual_knn.csv", "--mutual-knn", "1", "5", "10", "20", "50"))
    trained = sorted({*rows["epoch"]} - {0}) or [0]
    epochs = list(dict.fromkeys([trained[0], trained[-1]]))
    figure, panels = grid(len(epochs))
    for axes, epoch in zip(panels, epochs, strict=True):
        at_epoch = rows[rows["epoch"] == epoch].sort_values("k")
        for arm in tables.arms(at_epoch):
            curve = at_epoch[at_epoch["arm"] == arm]
            line(axes, curve["k"], curve["value"], arm, tables.styles[arm])
        k = np.array(sorted({*at_epoch["k"]}))
        chance = k / (at_epoch["num_images"].iloc[0] - 1)
        axes.plot(k, chance, color="0.6", linestyle=":", linewidth=1, label="chance")
        plain(axes)
        axes.set_xscale("log")
        axes.set_xticks(k, [str(each) for each in k])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("number of neighbours k")
        axes.set_title(f"epoch {epoch}", fontsize="medium")
    panels[0].set_ylabel(f"neighbours in common with {tables.reference}")
    add_legend(figure, tables, n_of_rows(rows, "test", tables.seeds))
    return figure


def class_alignment(tables: FigureTables) -> Figure:
    """Return the metrics of the images of each class for h on test, at the last epoch: a panel for each metric.

    Classes are sorted by the first metric, mean over the arms, the least similar at the top. With more than 20 classes
    the ten of the lowest and the ten of the highest values are drawn. Raises ValueError without such rows.
    """
    rows = _rows(tables, "test_class_alignment.csv", "--per-class")
    epoch = rows["epoch"].max()
    rows = rows[(rows["epoch"] == epoch) & rows["arm"].isin(tables.arms(rows))]
    rows = rows.loc[rows.groupby(["metric", "label"])["num_images"].transform("max") == rows["num_images"]]
    metrics, arms = list(dict.fromkeys(rows["metric"])), tables.arms(rows)
    means = rows[rows["metric"] == metrics[0]].groupby("label")["value"].mean().sort_values(na_position="last")
    classes = [str(label) for label in means.index]
    shown = classes if len(classes) <= MOST_CLASSES else classes[: MOST_CLASSES // 2] + classes[-MOST_CLASSES // 2 :]
    height = 1.6 + len(shown) * (0.12 + 0.1 * len(arms))
    figure = Figure(figsize=(1.6 + 2.4 * len(metrics), height), layout="constrained")
    place = np.arange(len(shown))
    for axes, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        values = rows[rows["metric"] == metric].pivot(index="label", columns="arm", values="value").reindex(shown)
        for index, arm in enumerate(arms):
            shift = 0.8 * ((index + 0.5) / len(arms) - 0.5)
            bar: dict[str, Any] = {"height": 0.8 / len(arms), "color": tables.styles[arm].color, "label": arm}
            axes.barh(place + shift, values.get(arm, pd.Series(math.nan, shown)), **bar)
        axes.set_yticks(place, shown)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", linewidth=0.4, alpha=0.5)
        axes.locator_params(axis="x", nbins=5)
        axes.set_title(metric, fontsize="medium")
    figure.axes[0].invert_yaxis()
    some = "" if shown == classes else f"\n{len(shown)} of {len(classes)} classes"
    label = f"h against that of {tables.reference}, test images, epoch {epoch}{some}"
    figure.supylabel(label, fontsize="medium")
    add_legend(figure, tables, n_of_rows(rows, "test", tables.seeds))
    return figure


def _rows(tables: FigureTables, name: str, *options: str) -> pd.DataFrame:
    """Return the rows of h with this reference of a table that `coupled alignment` writes with these options."""
    if len(tables.styles) > 1 and not (tables.folder / name).exists():
        command = suggest("alignment", "--run-dir", str(tables.folder.parent), *options)
        raise ValueError(f"{tables.folder / name}: no such file; write it with: {command}")
    rows = tables.read(name, "value")
    rows = rows[(rows["reference"] == tables.reference) & (rows["module"] == "h")] if len(rows) else rows
    if rows.empty:
        raise ValueError(f"{tables.folder / name}: no rows of h with the reference '{tables.reference}'")
    return rows
