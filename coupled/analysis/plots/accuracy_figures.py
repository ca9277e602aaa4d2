"""Figures of accuracy for pairs of arms: its difference against their alignment, and that of the weights between."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import grid, line, over_epochs, plain
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.plots.pair_figures import ALIGNMENTS, draw_rings, last_epoch_label, scores_of_h
from coupled.analysis.tables import largest_sample
from coupled.monitoring.commands import suggest

ACCURACIES = {  # metric, variant of quality.csv -> name
    ("nccc", "euclidean"): "nearest class centre",
    ("linear_probe", "regularised"): "linear probe",
}


def alignment_accuracy(tables: FigureTables) -> Figure:
    """Return the figure of the accuracy of each arm minus that of the reference against their alignment.

    One point per arm and epoch, for h on test; rings mark the last epoch. A row of panels is left out if quality.csv
    does not have its metric, a column if test_alignment.csv does not. Raises ValueError if no panel is left.
    """
    scores, accuracies = tables.scores(), accuracy_differences(tables.read("quality.csv", "value"), tables.reference)
    if not accuracies:
        metrics = [metric for metric, _ in ACCURACIES]
        command = suggest("quality", "--run-dir", str(tables.folder.parent), "--metrics", *metrics)
        raise ValueError(
            f"{tables.folder / 'quality.csv'}: no rows of {' or '.join(metrics)} of h on test for '{tables.reference}'"
            f" and another arm at the same epoch; compute them with: {command}"
        )
    alignments = scores_of_h(scores[~scores["arm"].isin(tables.twins)])
    panels = {
        (accuracy, title): rows.merge(differences, on=["epoch", "arm"])
        for accuracy, differences in accuracies.items()
        for title, rows in alignments.items()
    }
    for (accuracy, title), points in panels.items():
        if points.empty:
            raise ValueError(f"quality.csv ({accuracy}) and test_alignment.csv ({title}) have no epoch of h in common")
    if not panels:
        raise ValueError(f"{tables.folder / 'test_alignment.csv'}: no rows of {' or '.join(ALIGNMENTS)} of h")
    size = 3.4 * len(alignments) + 0.4, 0.6 + 2.9 * len(accuracies)
    figure, last = Figure(figsize=size, layout="constrained"), last_epoch_label(panels.values())
    cells = figure.subplots(len(accuracies), len(alignments), squeeze=False, sharex="col", sharey="row")
    for axes, ((accuracy, title), points) in zip(cells.flat, panels.items(), strict=True):
        for arm in tables.arms(points):
            each = points[points["arm"] == arm]
            style: dict[str, Any] = {"color": tables.styles[arm].color, "marker": tables.styles[arm].marker}
            axes.scatter(each["value"], each["difference"], s=16, label=arm, clip_on=False, **style)
        draw_rings(axes, points, "value", "difference", last)
        axes.axhline(0, color="0.4", linewidth=0.8)
        plain(axes)
        axes.set_title(f"{accuracy}, {title}", fontsize="medium")
    for row in cells:
        row[0].set_ylabel(f"accuracy - accuracy of {tables.reference}")
    for axes, title in zip(cells[-1], alignments, strict=True):
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


def classifier_name(metric: str, variant: str) -> str:
    """Return the name of a classifier of merge.csv in words; of a less common one, its metric and variant."""
    return ACCURACIES.get((metric, variant), f"{metric.replace('_', ' ')} ({variant})")


def merging(tables: FigureTables) -> Figure:
    """Return the figure of the accuracy of the weights between the reference and each arm, for h.

    For each classifier of merge.csv: the accuracy on the line between both weights at the last epoch, and over epochs
    the accuracy in the middle of the line minus the mean accuracy of its two ends. Raises ValueError without rows of h
    with this reference.
    """
    rows = tables.merged()
    rows = rows[rows["module"] == "h"]
    classifiers = list(dict.fromkeys(zip(rows["metric"], rows["variant"], strict=True)))
    if not classifiers:
        raise ValueError(f"{tables.folder / 'merge.csv'}: no rows of h with the reference '{tables.reference}'")
    figure, panels = grid(2 * len(classifiers), width=3.4, height=2.8)
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
        name = classifier_name(metric, variant)
        along.set_xlabel(f"share a of the arm in (1 - a) {tables.reference} + a arm")
        along.set_ylabel("accuracy on test images")
        along.set_title(f"weights between {tables.reference} and the arm,\nepoch {last}, {name}", fontsize="medium")
        over_epochs(half_way)
        half_way.axhline(0, color="0.4", linewidth=0.8)
        half_way.set_ylabel("difference of accuracies")
        half_way.set_title(f"accuracy at a = 1/2 minus the mean\nof both ends, {name}", fontsize="medium")
    add_legend(figure, tables)
    return figure
