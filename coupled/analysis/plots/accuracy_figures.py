"""Figures of accuracy for pairs of arms: its difference against their alignment, and that of the weights between."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import grid, line, over_epochs, plain
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.plots.pair_figures import ALIGNMENTS
from coupled.analysis.tables import largest_sample
from coupled.monitoring.commands import suggest

ACCURACIES = {  # metric, variant of quality.csv -> name
    ("nccc", "euclidean"): "nearest class centre",
    ("linear_probe", "regularised"): "linear probe",
}


def alignment_accuracy(tables: FigureTables) -> Figure:
    """Return the figure of the accuracy of each arm minus that of the reference against their alignment.

    One point per arm and epoch, for h on test; rings mark the last epoch. A row of panels is left out if quality.csv
    does not have its metric. Raises ValueError if it has none, or no epoch of test_alignment.csv.
    """
    scores, accuracies = tables.scores(), accuracy_differences(tables.read("quality.csv", "value"), tables.reference)
    if not accuracies:
        metrics = [metric for metric, _ in ACCURACIES]
        command = suggest("quality", "--run-dir", str(tables.folder.parent), "--metrics", *metrics)
        raise ValueError(
            f"{tables.folder / 'quality.csv'}: no rows of {' or '.join(metrics)} of h on test for '{tables.reference}'"
            f" and another arm at the same epoch; compute them with: {command}"
        )
    scores = scores[(scores["module"] == "h") & ~scores["arm"].isin(tables.twins)]
    figure = Figure(figsize=(7.2, 0.6 + 2.9 * len(accuracies)), layout="constrained")
    panels = figure.subplots(len(accuracies), len(ALIGNMENTS), squeeze=False, sharex="col", sharey="row")
    for row, (name, differences) in zip(panels, accuracies.items(), strict=True):
        for axes, (metric, title) in zip(row, ALIGNMENTS.items(), strict=True):
            points = scores[scores["metric"] == metric].merge(differences, on=["epoch", "arm"])
            if points.empty:
                raise ValueError(f"quality.csv and test_alignment.csv have no epoch of h in common for {metric}")
            for arm in tables.arms(points):
                each = points[points["arm"] == arm]
                style: dict[str, Any] = {"color": tables.styles[arm].color, "marker": tables.styles[arm].marker}
                axes.scatter(each["value"], each["difference"], s=16, label=arm, clip_on=False, **style)
            last = points[points["epoch"] == points["epoch"].max()]
            ring = {"marker": "o", "s": 110, "facecolor": "none", "edgecolor": "0.4", "linewidth": 1, "clip_on": False}
            axes.scatter(last["value"], last["difference"], label=f"epoch {points['epoch'].max()}", **ring)
            axes.axhline(0, color="0.4", linewidth=0.8)
            plain(axes)
            axes.set_title(f"{name}, {title}", fontsize="medium")
        row[0].set_ylabel(f"accuracy - accuracy of {tables.reference}")
    for axes, title in zip(panels[-1], ALIGNMENTS.values(), strict=True):
        axes.set_xlabel(f"{title} with {tables.reference}, test images, h")
    add_legend(figure, tables)
    return figure


def accuracy_differences(rows: pd.DataFrame, reference: str) -> dict[str, pd.DataFrame]:
    """Return the accuracies of h on test minus those of the reference, by name of the metric, from rows of quality.csv.

    Each table has the columns epoch, arm and `difference`. A metric without rows of both arms is left out.
    """
    rows = rows[(rows["split"] == "test") & (rows["module"] == "h")]
    found = {}
    for (metric, variant), name in ACCURACIES.items():
        of_metric = largest_sample(rows[(rows["metric"] == metric) & (rows["variant"] == variant)])
        of_reference = of_metric[of_metric["arm"] == reference][["epoch", "value"]]
        others = of_metric[of_metric["arm"] != reference]
        joined = others.merge(of_reference, on="epoch", suffixes=("", "_reference"))
        if len(joined):
            difference = joined["value"] - joined["value_reference"]
            found[name] = joined.assign(difference=difference)[["epoch", "arm", "difference"]]
    return found


def merging(tables: FigureTables) -> Figure:
    """Return the figure of the accuracy of the weights between the reference and each arm, for h.

    For each classifier of merge.csv: the accuracy along the line at the last epoch, and over epochs the accuracy half
    way minus the mean of both ends. Raises ValueError without rows of h with this reference.
    """
    rows = tables.merged()
    rows = rows[rows["module"] == "h"]
    classifiers = list(dict.fromkeys(zip(rows["metric"], rows["variant"], strict=True)))
    if not classifiers:
        raise ValueError(f"{tables.folder / 'merge.csv'}: no rows of h with the reference '{tables.reference}'")
    figure, panels = grid(2 * len(classifiers))
    last = rows["epoch"].max()
    for place, (metric, variant) in enumerate(classifiers):
        of_metric = largest_sample(rows[(rows["metric"] == metric) & (rows["variant"] == variant)])
        along, half_way = panels[2 * place : 2 * place + 2]
        for arm in tables.arms(of_metric):
            own = of_metric[of_metric["arm"] == arm]
            curve = own[own["epoch"] == last].sort_values("position")
            line(along, curve["position"], curve["value"], arm, tables.styles[arm])
            by_position = own.pivot(index="epoch", columns="position", values="value")
            if {0.0, 0.5, 1.0} <= {*by_position.columns}:
                barrier = by_position[0.5] - (by_position[0.0] + by_position[1.0]) / 2
                line(half_way, barrier.index, barrier, arm, tables.styles[arm])
        plain(along)
        along.set_xlabel(f"position: 0 is {tables.reference}, 1 the arm")
        along.set_title(f"accuracy, {metric}, epoch {last}", fontsize="medium")
        over_epochs(half_way)
        half_way.axhline(0, color="0.4", linewidth=0.8)
        half_way.set_title(f"{metric}: half way - mean of ends", fontsize="medium")
    add_legend(figure, tables)
    return figure
