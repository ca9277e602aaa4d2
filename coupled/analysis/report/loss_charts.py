"""The charts of losses: every loss for every arm, DCL - NSCL with its bounds, NSCL against direct minimisation."""

from collections.abc import Sequence

from coupled.analysis.report.charts import Chart, chart
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.selections import losses as select
from coupled.analysis.selections.looks import Looks


def losses(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """Every loss for every arm, and the training loss of each arm."""
    evaluated = any(len(run.table("losses.csv")) for run in runs)
    caption = (
        "Evaluated on augmented views that no arm was trained on, the same for all arms and epochs. The last entry of"
        " the menu, the training loss, is the mean over the steps of an epoch (epochs.csv)."
    )
    title = "Every loss evaluated for every arm"
    alone = "The training loss is the mean over the steps of an epoch (epochs.csv)."
    return chart("losses", title, caption if evaluated else alone, select.losses(runs, looks))


def loss_gap(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """DCL - NSCL and its bounds."""
    caption = (
        "The y axis is logarithmic. For every anchor the gap lies between 0 and the bound of its batch; coupled losses"
        " checks this and stops if it fails."
    )
    return chart("loss_gap", "Loss gap DCL - NSCL and its bounds", caption, select.loss_gap(runs, looks))


def nscl_reached(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """The NSCL loss of each arm, compared with an arm that minimises NSCL directly."""
    caption = (
        "The direct arm minimises NSCL itself. According to arXiv 2506.04411, minimising CL brings the NSCL loss near"
        " that of the direct arm: excess 0, share 1."
    )
    title = "NSCL loss compared with direct minimisation"
    return chart("reached", title, caption, select.nscl_reached(runs, looks))
