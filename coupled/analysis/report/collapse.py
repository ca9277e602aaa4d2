"""The report's figures of collapse, from collapse.csv: spread and its like over epochs, spectra, predictors."""

from collections.abc import Sequence

import pandas as pd

from coupled.analysis.report.charts import Chart, Figure, Look, layout, numbers, variant
from coupled.analysis.report.tables import Run
from coupled.analysis.tables import largest_sample

LINES = ("spread", "effective_rank", "alignment", "uniformity", "asymmetry")  # one value an epoch
SPECTRA = ("eigenvalue_share", "eigenvalue", "correlation_eigenvalue", "predictor_singular_value")
OF_A_PREDICTOR = ("eigenspace_alignment", "predictor_along")


def collapse(runs: Sequence[Run], look: Look) -> Chart:
    """What has one value an epoch."""
    variants: dict[str, Figure] = {}
    for run in runs:
        for metric, layer, split, part in parts(run, LINES):
            figure = variant(variants, f"{metric}, {layer}, {split}", layout(metric.replace("_", " ")))
            for arm, rows in part.groupby("arm", sort=False):
                rows = rows.sort_values("epoch")
                figure["data"].append(look.line(run, str(arm), rows["epoch"], rows["value"]))
    words = (
        "Spread: 1 is even, 0 is one point. Alignment: distance of two views, 0 is the same. Uniformity: 0 is one"
        " point, lower is more even. Asymmetry: of a predictor of one matrix, 0 is symmetric."
    )
    return Chart("collapse", "Collapse: spread, rank, alignment, uniformity", words, variants)


def spectra(runs: Sequence[Run], look: Look) -> Chart:
    """What has a value a direction, at the last measured epoch of each arm."""
    variants: dict[str, Figure] = {}
    for run in runs:
        for metric, layer, split, part in parts(run, SPECTRA + OF_A_PREDICTOR):
            axes = layout(metric.replace("_", " "), x="direction, largest first")
            if metric in SPECTRA:
                axes["yaxis"]["type"] = "log"
            figure = variant(variants, f"{metric}, {layer}, {split}", axes)
            for arm, rows in part.groupby("arm", sort=False):
                rows = rows[rows["epoch"] == rows["epoch"].max()]
                rows = rows.sort_values("component")
                heights = rows["value"].where(rows["value"] > 0) if metric in SPECTRA else rows["value"]
                figure["data"].append(look.line(run, str(arm), rows["component"], numbers(heights)))
    words = (
        "Eigenvalues of the covariance (shares of its trace), of the correlation F of a predictor's inputs, and"
        " singular values of the predictor W; the cosine of each eigenvector u of F with W u, and u·W u."
    )
    return Chart("spectra", "Spectra at the last measured epoch", words, variants)


def parts(run: Run, metrics: Sequence[str]) -> list[tuple[str, str, str, pd.DataFrame]]:
    """Metric, layer, split and rows, in the order of `metrics`."""
    table = run.table("collapse.csv")
    found = []
    for metric in metrics if len(table) else ():
        of_metric = table[table["metric"] == metric]
        for (layer, split), rows in of_metric.groupby(["module", "split"], sort=False):
            found.append((metric, str(layer), str(split), largest_sample(rows)))
    return found
