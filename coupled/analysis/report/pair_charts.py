"""The charts of pairs of arms: weight gap, alignment, growth of the gap, and the bounds of both."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import exprel

from coupled.analysis.plots.accuracy_figures import accuracy_differences
from coupled.analysis.plots.pair_figures import ALIGNMENTS
from coupled.analysis.report.charts import (
    Chart,
    Figure,
    Trace,
    TraceStyles,
    add_variant,
    layout,
    numbers,
    reference_of,
    rows_by_pair,
)
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.representations.layers import OUTPUTS
from coupled.analysis.tables import largest_sample, whole_encoder
from coupled.monitoring.terminal import counted

FLOORS = {"a_posteriori": "dash", "a_posteriori_sharp": "dot", "a_priori": "longdashdot"}


def headline(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """Weight gap and CKA over epochs, in two panels."""
    traces = []
    for run in runs:
        gaps, scores = run.table("weight_gap.csv"), run.table("test_alignment.csv")
        if len(gaps):
            for arm, more, rows in rows_by_pair(whole_encoder(gaps, "mean")):
                options = {"reference": reference_of(rows), "legendgroup": f"{run.name}{arm}{more}"}
                traces.append(styles.line(run, arm, rows["epoch"], rows["gap"], more, **options))
        if len(scores):
            scores = scores[(scores["module"] == "h") & (scores["metric"] == "cka")]
            for arm, more, rows in rows_by_pair(largest_sample(scores)):
                group = f"{run.name}{arm}{more}"
                options = {"reference": reference_of(rows), "legendgroup": group, "xaxis": "x2", "yaxis": "y2"}
                line = styles.line(run, arm, rows["epoch"], rows["value"], more, **options)
                traces.append({**line, "showlegend": group not in {each.get("legendgroup") for each in traces}})
    figure = {
        "data": traces,
        "layout": {
            "grid": {"rows": 1, "columns": 2, "pattern": "independent", "xgap": 0.16},
            **layout("weight gap, mean over layers"),
            "xaxis2": {"title": {"text": "epoch"}, "tickformat": "d"},
            "yaxis2": {"title": {"text": "CKA of h, test images"}},
        },
    }
    caption = (
        "Left: weight gap to the reference arm. Right: CKA with the reference arm. Arms with the same initialisation"
        " start at gap 0 and CKA 1. Grey lines are twins and show the noise floor."
    )
    title = "Weight gap and representation similarity during training"
    return Chart("headline", title, caption, {"": figure} if traces else {})


def alignment(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """Every pair metric of every pair, with the confidence intervals that were computed."""
    variants: dict[str, Figure] = {}
    for run in runs:
        for split in ("test", "train"):
            table = run.table(f"{split}_alignment.csv")
            if table.empty:
                continue
            table = table.sort_values("module", key=lambda layers: ~layers.isin(OUTPUTS), kind="stable")
            for (metric, layer), group in table.groupby(["metric", "module"], sort=False):
                figure = add_variant(variants, f"{metric}, {layer}, {split} images", layout(str(metric)))
                for arm, more, rows in rows_by_pair(largest_sample(group)):
                    line = styles.line(run, arm, rows["epoch"], rows["value"], more, reference=reference_of(rows))
                    figure["data"].append(_with_interval(line, rows))
    caption = "One line per pair of arms. Bars: 95 % confidence intervals over images, if computed with --confidence."
    return Chart("alignment", "Alignment of every pair", caption, variants)


def alignment_accuracy(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """Accuracy of h minus that of the reference, against CKA and RSA, one point per epoch."""
    variants: dict[str, Figure] = {}
    for run in runs:
        scores, quality = run.table("test_alignment.csv"), run.table("quality.csv")
        if scores.empty or quality.empty:
            continue
        scores = scores[(scores["module"] == "h") & scores["metric"].isin(list(ALIGNMENTS))]
        for (metric, reference), group in scores.groupby(["metric", "reference"], sort=False):
            for name, differences in accuracy_differences(quality, str(reference)).items():
                points = largest_sample(group).merge(differences, on=["epoch", "arm"]).sort_values("epoch")
                axes = layout("accuracy - accuracy of the reference", ALIGNMENTS[str(metric)])
                figure = add_variant(variants, f"{name}, {metric}", axes)
                for arm, rows in points.groupby("arm", sort=False):
                    more = f"to {reference}" if scores["reference"].nunique() > 1 else ""
                    options = {"reference": str(reference), "mode": "markers"}
                    line = styles.line(run, str(arm), rows["value"], rows["difference"], more, **options)
                    figure["data"].append(line | {"text": [f"epoch {epoch}" for epoch in rows["epoch"]]})
    caption = "Embeddings of test images; one point per epoch. Above 0 the arm is more accurate than the reference."
    return Chart("alignment_accuracy", "Accuracy gap and alignment", caption, variants)


def _with_interval(line: Trace, rows: pd.DataFrame) -> Trace:
    """The line with the confidence intervals of its rows, if they have any."""
    if "ci_low" not in rows or not rows["ci_low"].notna().any():
        return line
    up, down = rows["ci_high"] - rows["value"], rows["value"] - rows["ci_low"]
    bar = {"type": "data", "symmetric": False, "array": numbers(up), "arrayminus": numbers(down), "thickness": 1}
    return {**line, "error_y": {**bar, "width": 3}}


def alignment_bounds(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """CKA and RSA with their lower bounds; the line of a bound has a gap where the bound is vacuous."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("bounds.csv")
        table = table[table["of"].isin(["cka", "rsa"])] if len(table) else table
        if table.empty:
            continue
        for (of, layer, split), group in table.groupby(["of", "module", "split"], sort=False):
            figure = add_variant(variants, f"{of}, {layer}, {split} images", layout(str(of)))
            for arm, more, rows in rows_by_pair(largest_sample(group)):
                measured, options = rows[rows["bound"] == "a_posteriori"], {"reference": reference_of(rows)}
                figure["data"].append(styles.line(run, arm, measured["epoch"], measured["measured"], more, **options))
                for bound, dash in FLOORS.items():
                    floor = rows[rows["bound"] == bound]
                    if len(floor):
                        y = floor["value"].where(floor["vacuous"] == "no")
                        caption = " ".join(filter(None, (more, bound.replace("_", " "))))
                        figure["data"].append(styles.line(run, arm, floor["epoch"], y, caption, dash, **options))
    caption = (
        "Lines with markers: measured scores. Other lines: lower bounds, with a gap where a bound is vacuous (rho ≥ 1)."
        " The a-priori bound holds for gradient descent on the similarities themselves. Training a network is not such"
        " a descent, so this bound may lie above the score."
    )
    return Chart("alignment_bounds", "Alignment and its lower bounds", caption, variants)


def growth(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """The global weight gap and the two curves fitted to it."""
    variants: dict[str, Figure] = {}
    for run in runs:
        gaps, fits = run.table("weight_gap.csv"), run.table("weight_gap_growth.csv")
        if gaps.empty or fits.empty:
            continue
        gaps = whole_encoder(gaps, "global")
        for reference, group in gaps.groupby("reference", sort=False):
            figure = add_variant(variants, f"to {reference}", layout("global weight gap"))
            for arm, _, rows in rows_by_pair(group):
                options = {"reference": str(reference)}
                figure["data"].append(styles.line(run, arm, rows["epoch"], rows["gap"], mode="markers", **options))
                of_pair = fits[(fits["reference"] == reference) & (fits["arm"] == arm)]
                t = np.linspace(0, float(rows["epoch"].max()), 80)
                for model, sign, dash in (("saturation", -1, "dash"), ("exponential", 1, "dot")):
                    for fit in of_pair[of_pair["model"] == model].to_dict("records"):
                        with np.errstate(over="ignore", invalid="ignore"):  # a gap in the line
                            curve = fit["slope"] * t * exprel(sign * fit["rate"] * t)
                        figure["data"].append(styles.line(run, arm, t, curve, model, dash, **options))
    caption = (
        "Points are measured. Both fitted curves start at 0 and have two parameters. The table of fits marks the curve"
        " with the lower AIC as better."
    )
    return Chart("growth", "Growth of the weight gap: exponential or saturating", caption, variants)


def weight_shape(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """The global weight distance and the fitted shape of its bound."""
    figure: Figure = {"data": [], "layout": layout("||w_a - w_b||, all weights")}
    for run in runs:
        table = run.table("bounds.csv")
        table = table[table["bound"] == "exponential_shape"] if len(table) else table
        for arm, more, rows in rows_by_pair(table) if len(table) else ():
            rows, options = rows[rows["fit_epochs"] == rows["fit_epochs"].max()], {"reference": reference_of(rows)}
            figure["data"].append(
                styles.line(run, arm, rows["epoch"], rows["measured"], more, mode="markers", **options)
            )
            caption = " ".join(filter(None, (more, f"shape {describe_fit(rows)}")))
            figure["data"].append(styles.line(run, arm, rows["epoch"], rows["value"], caption, "dash", **options))
    caption = (
        "Points are measured. Dashed: slope (e^(β Σ lr) - 1)/β, with slope and β fitted by least squares. The curve"
        " shows how well the shape of the bound fits; it is not a bound."
    )
    return Chart(
        "weight_shape", "Weight distance and the shape of its bound", caption, {"": figure} if figure["data"] else {}
    )


def describe_fit(rows: pd.DataFrame) -> str:
    """The parameters of the fit in the last row."""
    epochs, last, slope, beta = rows[["fit_epochs", "fit_last_epoch", "slope", "beta"]].iloc[-1]
    return f"fitted to {counted(int(epochs), 'epoch')} up to {last:g}: slope={slope:.6g} beta={beta:.6g}"
