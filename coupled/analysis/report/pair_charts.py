"""The charts of pairs of arms: weight gap, alignment, growth of the gap, and the bounds of both."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from coupled.analysis.report.charts import Chart, chart, side_by_side, with_n
from coupled.analysis.report.tables import ReportRun, by_reference
from coupled.analysis.selections import accuracy, bounds, pairs
from coupled.analysis.selections.looks import Looks
from coupled.analysis.selections.panels import Panel

FLOOR = " A grey band shows the noise floor: how much twins of the reference differ."


def headline(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """Weight gap and CKA over epochs, in two panels: to the reference of the first sentence."""
    shown = [run.only(run.references[0]) if run.references else run for run in runs]
    panels = [panel for panel in pairs.drift(shown, looks) if panel.key[0] in ("gap", "cka")]
    both = "First panel: weight gap to the reference arm. Second panel: CKA with it. " if len(panels) == 2 else ""
    caption = (
        f"{both}Arms with the same initialisation start at gap 0 and CKA 1."
        f"{FLOOR if any(panel.floor for panel in panels) else ''}"
    )
    title = "Weight gap and representation similarity during training"
    return Chart("headline", title, with_n(caption, panels), {"": side_by_side(panels)} if panels else {})


def _panels(
    select: Callable[[Sequence[ReportRun], Looks], list[Panel]], runs: Sequence[ReportRun], looks: Looks
) -> list[Panel]:
    """The panels of one reference after the other; with several references their names end with the reference."""
    return [
        replace(panel, name=", ".join(filter(None, (panel.name, f"to {name}" if name else ""))))
        for name, of_one in by_reference(runs)
        for panel in select(of_one, looks)
    ]


def alignment(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """Every pair metric, layer and split, with the confidence intervals that were computed."""
    panels = _panels(pairs.alignment, runs, looks)
    lines = "One line per arm: its similarity to the reference arm."
    missing = not any(panel.bars for panel in panels) and any(run.seeds == 1 for run in runs)
    bars = " coupled alignment --confidence adds intervals over images." if missing else ""
    floor = FLOOR if any(panel.floor for panel in panels) else ""
    caption = f"{lines}{bars}{floor}"
    return chart("alignment", "Alignment by metric and layer", caption, panels)


def alignment_accuracy(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """Accuracy of h minus that of the reference, against CKA and RSA, one point per epoch."""
    caption = "Embeddings of test images; one point per epoch. Above 0 the arm is more accurate than the reference."
    panels = _panels(accuracy.alignment_accuracy, runs, looks)
    return chart("alignment_accuracy", "Accuracy gap and alignment", caption, panels)


def alignment_bounds(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """CKA and RSA with their lower bounds; the line of a bound has a gap where the bound is vacuous."""
    caption = (
        "Lines with markers: measured scores. Other lines: lower bounds, with a gap where a bound is vacuous (rho ≥ 1)."
        " The a-priori bound holds for gradient descent on the similarities themselves. Training a network is not such"
        " a descent, so this bound may lie above the score."
    )
    panels = _panels(bounds.alignment_bounds, runs, looks)
    return chart("alignment_bounds", "Alignment and its lower bounds", caption, panels)


def growth(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """The global weight gap and the two curves fitted to it."""
    caption = (
        "Points are measured. Both fitted curves start at 0 and have two parameters; of several seeds a curve is the"
        " mean of the curves that are fitted to each. The table of fits marks the curve with the lower AIC as better."
    )
    title = "Growth of the weight gap: exponential or saturating"
    return chart("growth", title, caption, bounds.growth(runs, looks))


def weight_shape(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """The global weight distance and the fitted shape of its bound."""
    caption = (
        "Points are measured. Dashed: slope (e^(β Σ lr) - 1)/β, with slope and β fitted by least squares. The curve"
        f" shows how well the shape of the bound fits; it is not a bound. {bounds.fitted_epochs(runs)}"
    ).strip()
    title = "Weight distance and the shape of its bound"
    return chart("weight_shape", title, caption, _panels(bounds.weight_shape, runs, looks))
