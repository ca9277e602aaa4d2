"""The charts of the training log: loss, gradient norm and learning rate over steps, for every arm."""

from collections.abc import Sequence

from coupled.analysis.report.charts import Chart, chart
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.selections import losses
from coupled.analysis.selections.looks import Looks


def steps(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """Loss, gradient norm and learning rate of steps.csv; arms with their own optimizer have their own rate."""
    longest = max((len(run.table("steps.csv")) for run in runs), default=0)
    size = -(-longest // losses.MOST_POINTS)
    mean = f" A point is the mean of {size} steps." if longest > losses.MOST_POINTS else ""
    caption = (
        "From steps.csv. Losses of different objectives have different scales and cannot be compared with each other."
        f" Gradient norms are before clipping.{mean} An arm with its own optimizer has its own rate."
    )
    of_run = chart("steps", "Loss, gradient norm and learning rate over steps", caption, losses.steps(runs, looks))
    for variant in of_run.variants.values():
        variant["layout"]["showlegend"] = True  # of a single line, too
    return of_run
