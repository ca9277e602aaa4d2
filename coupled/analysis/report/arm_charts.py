"""The charts of single arms: quality, few-shot errors, collapse, spectra, throughput."""

from collections.abc import Sequence

import pandas as pd

from coupled.analysis.report.charts import Chart, Figure, TraceStyles, add_variant, layout, numbers
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.tables import largest_sample

LINES = ("spread", "effective_rank", "alignment", "uniformity", "asymmetry")  # one value per epoch
SPECTRA = ("eigenvalue_share", "eigenvalue", "correlation_eigenvalue", "predictor_singular_value")
BOUNDS = {"proposition_1": "dash", "documented_form": "dot"}  # of few-shot errors
OF_A_PREDICTOR = ("eigenspace_alignment", "predictor_along")


def quality(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """All arm metrics except few-shot, over epochs."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("quality.csv")
        table = table[table["shots"].isna()] if len(table) else table
        if table.empty:
            continue
        first = table["metric"].isin(["nccc", "linear_probe"])
        for metrics in (table[first], table[~first]):
            for (metric, how, k, layer, split), group in metrics.groupby(
                ["metric", "variant", "k", "module", "split"], sort=False, dropna=False
            ):
                detail = str(how) if group["k"].isna().all() else f"{how} k={k:g}"
                axes = layout(f"{metric}, {detail}")
                figure = add_variant(variants, f"{metric} ({detail}), {layer}, {split}", axes)
                for arm, rows in largest_sample(group).groupby("arm", sort=False):
                    figure["data"].append(styles.line(run, str(arm), rows["epoch"], rows["value"]))
    caption = "Each line is computed from one arm alone, without the reference arm."
    return Chart("quality", "Quality of each arm's representation", caption, variants)


def few_shot(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """Errors against shots at the last measured epoch, with both forms of the bound."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("quality.csv")
        table = table[table["shots"].notna()] if len(table) else table
        if table.empty:
            continue
        epoch = table["epoch"].max()
        table = table[table["epoch"] == epoch].dropna(subset=["value"])
        if table.empty:
            continue
        for (metric, classifier, layer, split), group in table.groupby(
            ["metric", "variant", "module", "split"], sort=False
        ):
            task = "two classes" if metric == "few_shot_two_way" else "all classes"
            axes = layout(f"error of {classifier}", "labelled images per class")
            axes["xaxis"]["type"] = axes["yaxis"]["type"] = "log"
            figure = add_variant(
                variants, ", ".join([str(classifier), task, str(layer), *(["train"] if split == "train" else [])]), axes
            )
            for arm, rows in largest_sample(group).groupby("arm", sort=False):
                rows = rows.sort_values("shots")
                bars = {"type": "data", "array": numbers(rows["std"]), "thickness": 1}
                errors = 1 - rows["value"]
                figure["data"].append(styles.line(run, str(arm), rows["shots"], errors, f"epoch {epoch}", error_y=bars))
                bounds = _few_shot_bounds(run, str(arm), str(layer), str(classifier), str(metric), epoch)
                bounds = bounds if split == "test" else bounds[:0]
                figure["data"] += [
                    styles.line(run, str(arm), bound["shots"], bound["value"], form.replace("_", " "), dash)
                    for form, dash in BOUNDS.items()
                    if len(bound := bounds[bounds["bound"] == form])
                ]
    caption = (
        "Both axes are logarithmic. Bars: standard deviation over ten draws of the labelled images. A bound is vacuous"
        " from 1 upwards, for two classes from 1/2 upwards."
    )
    return Chart("few_shot", "Few-shot errors and their bounds", caption, variants)


def _few_shot_bounds(run: ReportRun, arm: str, layer: str, classifier: str, metric: str, epoch: int) -> pd.DataFrame:
    """The rows of bounds.csv about these few-shot errors, sorted by shots."""
    table = run.table("bounds.csv")
    if table.empty:
        return pd.DataFrame(columns=["bound"])
    task = "two_way" if metric == "few_shot_two_way" else "all"
    table = table[(table["arm"] == arm) & (table["module"] == layer) & (table["of"] == f"{classifier}_error")]
    table = table[(table["epoch"] == epoch) & (table["task"] == task) & table["bound"].isin(list(BOUNDS))]
    return pd.concat([table[:0], *(largest_sample(rows) for _, rows in table.groupby("bound"))]).sort_values("shots")


def collapse(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """The collapse metrics that have one value per epoch."""
    variants: dict[str, Figure] = {}
    for run in runs:
        for metric, layer, split, group in _rows_by_metric(run, LINES):
            figure = add_variant(variants, f"{metric}, {layer}, {split}", layout(metric.replace("_", " ")))
            for arm, rows in group.groupby("arm", sort=False):
                rows = rows.sort_values("epoch")
                figure["data"].append(styles.line(run, str(arm), rows["epoch"], rows["value"]))
    caption = (
        "Spread: 1 = directions are spread evenly, 0 = a single point. Alignment: mean squared distance of two views of"
        " an image, 0 = equal. Uniformity: 0 = a single point, lower = more even. Asymmetry of a predictor that is one"
        " matrix: 0 = symmetric."
    )
    return Chart("collapse", "Collapse diagnostics: spread, rank, alignment, uniformity", caption, variants)


def spectra(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """The collapse metrics that have one value per direction, at the last measured epoch of each arm."""
    variants: dict[str, Figure] = {}
    for run in runs:
        for metric, layer, split, group in _rows_by_metric(run, SPECTRA + OF_A_PREDICTOR):
            axes = layout(metric.replace("_", " "), x="direction, largest first")
            if metric in SPECTRA:
                axes["yaxis"]["type"] = "log"
            figure = add_variant(variants, f"{metric}, {layer}, {split}", axes)
            for arm, rows in group.groupby("arm", sort=False):
                rows = rows[rows["epoch"] == rows["epoch"].max()]
                rows = rows.sort_values("component")
                heights = rows["value"].where(rows["value"] > 0) if metric in SPECTRA else rows["value"]
                figure["data"].append(styles.line(run, str(arm), rows["component"], numbers(heights)))
    caption = (
        "Eigenvalues of the covariance (as shares of its trace) and of the correlation matrix F of the predictor's"
        " inputs; singular values of the predictor W. eigenspace_alignment is the cosine of u and W u for each"
        " eigenvector u of F; predictor_along is u·W u."
    )
    return Chart("spectra", "Spectra at the last measured epoch", caption, variants)


def _rows_by_metric(run: ReportRun, metrics: Sequence[str]) -> list[tuple[str, str, str, pd.DataFrame]]:
    """Metric, layer, split and rows, in the order of `metrics`."""
    table = run.table("collapse.csv")
    groups = []
    for metric in metrics if len(table) else ():
        of_metric = table[table["metric"] == metric]
        for (layer, split), rows in of_metric.groupby(["module", "split"], sort=False):
            groups.append((metric, str(layer), str(split), largest_sample(rows)))
    return groups


def throughput(runs: Sequence[ReportRun], styles: TraceStyles) -> Chart:
    """Images per second of each arm's part of the step."""
    figure: Figure = {"data": [], "layout": layout("images per second", showlegend=True)}
    for run in runs:
        table = run.table("epochs.csv")
        for arm, rows in table.groupby("arm", sort=False) if len(table) else ():
            figure["data"].append(styles.line(run, str(arm), rows["epoch"], rows["images_per_second"]))
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    caption = "Images per second of each arm's part of the training step, from epochs.csv."
    return Chart("throughput", "Training throughput", caption, {"": figure} if figure["data"] else {})
