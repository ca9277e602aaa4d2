"""The figures of classifiers: reliability curves, errors on corrupted images."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.corruptions.constants import CORRUPTIONS, SEVERITIES
from coupled.analysis.plots.drawing import line, plain
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.selections.panels import n_of_rows
from coupled.analysis.tables import largest_sample
from coupled.monitoring.terminal import counted

NAMES = {"logits": "classifier of the arm", "h": "linear probe on h", "z": "linear probe on z"}  # by module


def reliability(tables: FigureTables) -> Figure:
    """Return the reliability curves of test at the last epoch: a panel for each classifier, a line for each arm.

    Below the diagonal a classifier is too confident. Bins without images have no point. The legend names the last
    epoch. Raises ValueError without a curve of test.
    """
    rows = tables.read("reliability.csv", "accuracy")
    rows = rows[(rows["split"] == "test") & rows["count"].notna()]
    if rows.empty:
        raise ValueError(f"{tables.folder / 'reliability.csv'}: no curve of test to draw")
    epoch = rows["epoch"].max()
    rows = rows[rows["epoch"] == epoch].sort_values("bin")
    panels = {
        name: _curves(rows[rows["module"] == module]) for module, name in NAMES.items() if module in {*rows["module"]}
    }
    figure = Figure(figsize=(3.2 * max(2, len(panels)), 3.9), layout="constrained")
    cells = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, curves) in zip(cells, panels.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1, label="calibrated")
        for arm in tables.arms(curves):
            curve = curves[curves["arm"] == arm]
            line(axes, curve["confidence"], curve["accuracy"], arm, tables.styles[arm])
        plain(axes)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", aspect="equal")
        axes.set_title(f"{name},\ntest images, epoch {epoch}", fontsize="medium")
    cells[0].set_ylabel("accuracy")
    add_legend(figure, tables, n_of_rows(rows, "test", tables.seeds))
    return figure


def _curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the bins with images, of the largest sample and of the last number of bins in the table."""
    rows = largest_sample(rows)
    return rows[(rows["bins"] == rows["bins"].iloc[-1]) & (rows["count"] > 0)]


def corruption_errors(tables: FigureTables) -> Figure:
    """Return errors on corrupted test images at the last epoch, over severities and for each corruption.

    On the left the mean over the corruptions that have all severities, on the right the error of each corruption, mean
    over the severities. An arm's own classifier is shown if it was measured, otherwise the probe. Raises ValueError
    without a corruption at all severities.
    """
    rows = tables.read("robustness.csv", "value")
    rows = rows[rows["epoch"] == rows["epoch"].max()]
    rows = rows[rows["source"] == rows["source"].iloc[-1]] if len(rows) else rows
    rows = pd.concat([largest_sample(_preferred(rows[rows["arm"] == arm])) for arm in tables.arms(rows)] or [rows])
    levels = rows.groupby("corruption")["severity"].agg(set)
    names = [name for name in CORRUPTIONS if name in levels and {*SEVERITIES} <= levels[name]]
    if not names:
        raise ValueError(f"{tables.folder / 'robustness.csv'}: no corruption at all severities")
    figure = Figure(figsize=(9.0, 1.6 + 0.3 * max(6, len(names))), layout="constrained")
    over_severities, of_corruptions = figure.subplots(1, 2)
    place = np.arange(len(names) + 1)
    for arm in tables.arms(rows):
        cells = rows[rows["arm"] == arm].pivot(index="severity", columns="corruption", values="value")
        mean = cells.reindex(columns=names).mean(axis=1, skipna=False)
        if "none" in cells:
            mean[0] = cells["none"][0]
        mean = mean.sort_index()
        line(over_severities, mean.index, mean, arm, tables.styles[arm])
        errors = [*cells.loc[list(SEVERITIES)].reindex(columns=names).mean(), mean[list(SEVERITIES)].mean()]
        style = {"color": tables.styles[arm].color, "marker": tables.styles[arm].marker}
        of_corruptions.plot(errors, place, linestyle="", markersize=5, label=arm, **style)
    for axes in (over_severities, of_corruptions):
        plain(axes)
    over_severities.set_xlabel("severity (0: clean images)")
    over_severities.set_title(f"error, mean over {counted(len(names), 'corruption')}", fontsize="medium")
    of_corruptions.set_yticks(place, [*names, "mean"])
    of_corruptions.invert_yaxis()
    of_corruptions.grid(axis="y", linewidth=0.4, alpha=0.5)
    of_corruptions.set_title(f"error, mean over severities, epoch {rows['epoch'].max()}", fontsize="medium")
    add_legend(figure, tables, n_of_rows(rows, "test", tables.seeds))
    return figure


def _preferred(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the arm's own classifier if there are any, otherwise those of the probe."""
    own = rows[rows["variant"] == "classifier"]
    return own if len(own) else rows
