"""Bounds that need no network: rows of bounds.csv made of quality.csv and weight_gap.csv."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path

import numpy as np

from coupled.analysis.tables import BadTableError, read_newest
from coupled.analysis.theory.bound_formulas import (
    Scatter,
    documented_form,
    proposition_1,
    vacuous_error,
    weight_distance,
)
from coupled.analysis.weights.growth import fits

Row = tuple[object, ...]
SCATTER = ("cdnv", "root_cdnv", "directional_cdnv")
SCATTERS = (1e-100, 1e100)  # what a scatter that is not 0 may be: beyond, the formulas leave the range of floats
# the last of the rows that agree in these counts
QUALITY = (*("epoch", "split", "arm", "layer", "metric", "detail"), "samples", "train_samples")
GAPS = ("epoch", "reference", "arm", "layer")
TASKS = {"few_shot": "all", "few_shot_two_way": "two_way"}


def few_shot_rows(quality: Path, classes: int) -> list[Row]:
    """Both forms of the bound for every arm, epoch, layer and number of shots; [] if nothing was measured.

    The mean over pairs of two-way bounds is the bound at the mean scatter: that of all classes over C - 1.
    """
    if not quality.is_file():
        return []
    table = read_newest(quality, QUALITY, "value", "snapshot", "images")
    table = table[table["split"] == "test"]
    scattered = table[table["metric"].isin(SCATTER)]["value"].dropna()
    for row, value in scattered[(scattered != 0) & ~scattered.between(*SCATTERS)].items():
        raise BadTableError(f"{quality}: row {int(str(row)) + 2}: value: got {value}, expected 0 or 1e-100 to 1e100")
    rows: list[Row] = []
    for place, part in table.groupby(["epoch", "arm", "layer", "samples"], sort=False):
        epoch, arm, layer, samples = place
        means = part[part["metric"].isin(SCATTER)].set_index("metric")["value"].dropna()
        if set(means.index) != set(SCATTER):
            continue
        scatter = Scatter(*(float(means[metric]) for metric in SCATTER))
        for row in part[part["metric"].isin(TASKS)].itertuples():
            task, (classifier, _, shots) = TASKS[str(row.metric)], str(row.detail).partition(" m=")
            if isnan(float(row.value)):  # type: ignore[arg-type]
                continue
            for name, formula in (("proposition_1", proposition_1), ("documented_form", documented_form)):
                among = classes if task == "all" else 2
                bound = formula(scatter, among, int(shots)).error
                vacuous = "yes" if bound >= vacuous_error(among) else "no"
                measured = 1 - float(row.value)  # type: ignore[arg-type]
                where = epoch, "test", "", arm, layer, name, f"{classifier}_error", f"{task} m={shots}"
                holds = "yes" if measured <= bound else "no"
                sources = samples, row.train_samples, "", row.snapshot, row.images
                rows.append((*where, bound, measured, "", vacuous, holds, *sources))
    return rows


def weight_rows(gaps: Path, rates: Mapping[int, float]) -> list[Row]:
    """The fitted shape of the weight bound at every epoch of every pair; [] with fewer than 4 epochs.

    `rates` is the sum of the learning rates by epoch. Least squares over slope and beta >= 0, not an upper bound.
    """
    if not gaps.is_file():
        return []
    table = read_newest(gaps, GAPS, "distance", "reference_snapshot", "arm_snapshot")
    table = table[(table["layer"] == "global") & table["distance"].notna()].sort_values("epoch")
    rows: list[Row] = []
    for (reference, arm), part in table.groupby(["reference", "arm"], sort=False):
        part = part[part["epoch"].isin(list(rates))]
        epochs, measured = part["epoch"].tolist(), part["distance"].to_numpy(float)
        totals = np.array([rates[epoch] for epoch in epochs])
        fit = {each.model: each for each in fits(totals, measured)}.get("exponential")
        if fit is None or isnan(fit.slope):
            continue
        detail = f"fitted to {fit.points} epochs up to {epochs[-1]}: slope={fit.slope:.6g} beta={fit.rate:.6g}"
        sources = part[["reference_snapshot", "arm_snapshot"]].itertuples(index=False, name=None)
        for epoch, total, distance, source in zip(epochs, totals, measured, sources, strict=True):
            value = weight_distance(float(total), fit.slope, fit.rate)
            place = epoch, "", reference, arm, "global", "exponential_shape", "weight_distance", detail
            rows.append((*place, value, distance, "", "", "", fit.points, "", *source, ""))
    return rows
