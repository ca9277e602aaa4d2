"""The charts of single arms: quality, few-shot errors, collapse, spectra, throughput."""

from collections.abc import Sequence

from coupled.analysis.report.charts import Chart, chart, figure, with_n
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.selections import arms
from coupled.analysis.selections.looks import Looks


def quality(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """All arm metrics except few-shot, over epochs."""
    caption = "Each line is computed from one arm alone, without the reference arm."
    return chart("quality", "Quality of each arm's representation", caption, arms.quality(runs, looks))


def few_shot(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """Errors against shots at the last measured epoch, with both forms of the bound."""
    kinds = {run.seeds > 1: "seeds" if run.seeds > 1 else "ten draws of the labelled images" for run in runs}
    panels = arms.few_shot(runs, looks)
    axes = "Both axes are" if any(panel.x.log for panel in panels) else "The y axis is"
    caption = (
        f"{axes} logarithmic. Bars or bands: standard deviation over {', or over '.join(kinds.values())}."
        " A bound is vacuous from 1 upwards, for two classes from 1/2 upwards."
    )
    return chart("few_shot", "Few-shot errors and their bounds", caption, panels)


def collapse(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """The collapse metrics that have one value per epoch."""
    caption = (
        "Spread: 1 = directions are spread evenly, 0 = a single point. Alignment: mean squared distance of two views of"
        " an image, 0 = equal. Uniformity: 0 = a single point, lower = more even. Asymmetry of a predictor that is one"
        " matrix: 0 = symmetric."
    )
    title = "Collapse diagnostics: spread, rank, alignment, uniformity"
    return chart("collapse", title, caption, arms.collapse(runs, looks))


def spectra(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """The collapse metrics that have one value per direction, at the last measured epoch of each arm."""
    caption = (
        "Eigenvalues of the covariance (as shares of its trace) and of the correlation matrix F of the predictor's"
        " inputs; singular values of the predictor W. eigenspace_alignment is the cosine of u and W u for each"
        " eigenvector u of F; predictor_along is u·W u."
    )
    return chart("spectra", "Spectra at the last measured epoch", caption, arms.spectra(runs, looks))


def throughput(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """Images per second of each arm's part of the step."""
    caption = "Images per second of each arm's part of the training step, from epochs.csv."
    panels = arms.throughput(runs, looks)
    drawn = {panel.name: figure(panel) for panel in panels}
    for each in drawn.values():
        each["layout"]["showlegend"] = True  # of a single line, too
    return Chart("throughput", "Training throughput", with_n(caption, panels), drawn)
