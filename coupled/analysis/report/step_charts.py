"""The charts of the training log: loss, gradient norm and learning rate over steps, for every arm."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from coupled.analysis.report.charts import Chart, Figure, TraceStyles, add_variant, layout
from coupled.analysis.report.loss_charts import line_of_no_arm
from coupled.analysis.report.tables import ReportRun

MOST_POINTS = 400  # of a line; of a longer run a point is the mean of several steps
COLUMNS = {"loss": "training loss", "grad_norm": "gradient norm"}  # of steps.csv, after <arm>_ -> title
RATE = "learning rate"


def steps(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """Loss, gradient norm and learning rate of steps.csv; arms with their own optimizer have their own rate."""
    variants: dict[str, Figure] = {}
    for column, title in COLUMNS.items():
        for run in runs:
            table = binned(run.table("steps.csv"))
            for arm in run.arms if len(table) else ():
                if f"{arm}_{column}" in table:
                    figure = add_variant(variants, title, layout(title, "step"))
                    line = styles.line(run, arm, table["step"], table[f"{arm}_{column}"], mode="lines")
                    figure["data"].append(line)
    for run in runs:
        whole, epochs = run.table("steps.csv"), run.table("epochs.csv")
        own = [arm for arm, each in run.run.description["settings"]["arms"].items() if each.get("optimizer")]
        if whole.empty:
            continue
        table, ends = binned(whole), whole.groupby("epoch")["step"].max()
        figure = add_variant(variants, RATE, layout(RATE, "step", showlegend=True))
        if len(own) < len(run.arms):
            name = "shared" if own else "all arms"
            figure["data"].append(line_of_no_arm(table["step"], table["lr"], name, "solid", run, styles))
        for arm in own if len(epochs) else ():
            rows = epochs[epochs["arm"] == arm]
            figure["data"].append(styles.line(run, arm, rows["epoch"].map(ends), rows["lr"]))
    longest = max((len(run.table("steps.csv")) for run in runs), default=0)
    mean = f" A point is the mean of {-(-longest // MOST_POINTS)} steps." if longest > MOST_POINTS else ""
    caption = (
        "From steps.csv. Losses of different objectives have different scales and cannot be compared with each other."
        f" Gradient norms are before clipping.{mean} The rate of an arm with its own optimizer is that of the last step"
        " of each epoch (epochs.csv)."
    )
    return Chart("steps", "Loss, gradient norm and learning rate over steps", caption, variants)


def binned(table: pd.DataFrame) -> pd.DataFrame:
    """Return at most `MOST_POINTS` rows: means over equally many steps; the last one may have fewer."""
    if len(table) <= MOST_POINTS:
        return table
    size = -(-len(table) // MOST_POINTS)
    return table.groupby(np.arange(len(table)) // size).mean(numeric_only=True)
