"""Bounds that need no network: rows of bounds.csv computed from quality.csv and weight_gap.csv."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path

import numpy as np

from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import BadTableError, read_newest, whole_encoder
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
SCATTERS = (1e-100, 1e100)  # range of a scatter that is not 0; outside it the formulas exceed the range of floats
TASKS = {"few_shot": "all", "few_shot_two_way": "two_way"}
COLUMNS, KEY = SCHEMAS["bounds.csv"].columns, SCHEMAS["bounds.csv"].key


def cells(columns: Sequence[str], **known: object) -> Row:
    """Return the cells of these columns of bounds.csv; a column that is not in `known` is empty."""
    return tuple(known.get(column, "") for column in columns)


def few_shot_rows(quality: Path, classes: int) -> list[Row]:
    """Return both forms of the bound for every arm, epoch, layer and number of shots; [] if nothing was measured.

    The mean of the two-way bounds over pairs is the bound at the mean scatter: that of all classes divided by C - 1.
    """
    if not quality.is_file():
        return []
    table = read_newest(quality, "value", "arm_digest", "images_digest")
    table = table[table["split"] == "test"]
    scattered = table[table["metric"].isin(SCATTER)]["value"].dropna()
    for row, value in scattered[(scattered != 0) & ~scattered.between(*SCATTERS)].items():
        raise BadTableError(f"{quality}: row {int(str(row)) + 2}: value: got {value}, expected 0 or 1e-100 to 1e100")
    rows: list[Row] = []
    for place, part in table.groupby(["epoch", "arm", "module", "num_images"], sort=False):
        means = part[part["metric"].isin(SCATTER)].set_index("metric")["value"].dropna()
        if set(means.index) != set(SCATTER):
            continue
        scatter = Scatter(*(float(means[metric]) for metric in SCATTER))
        for row in part[part["metric"].isin(TASKS)].itertuples():
            task, shots = TASKS[str(row.metric)], int(row.shots)  # type: ignore[arg-type]
            if isnan(float(row.value)):  # type: ignore[arg-type]
                continue
            for name, formula in (("proposition_1", proposition_1), ("documented_form", documented_form)):
                among = classes if task == "all" else 2
                bound = formula(scatter, among, shots).error
                measured = 1 - float(row.value)  # type: ignore[arg-type]
                what = {
                    **dict(zip(("epoch", "arm", "module", "num_images"), place, strict=True)),
                    "split": "test",
                    "bound": name,
                    "of": f"{row.variant}_error",
                    "task": task,
                    "shots": shots,
                    "value": bound,
                    "measured": measured,
                    "num_train_images": row.num_train_images,
                    "vacuous": "yes" if bound >= vacuous_error(among) else "no",
                    "holds": "yes" if measured <= bound else "no",
                    "arm_digest": row.arm_digest,
                    "images_digest": row.images_digest,
                }
                rows.append(cells(COLUMNS, **what))
    return rows


def weight_rows(gaps: Path, rates: Mapping[int, float]) -> list[Row]:
    """Return the fitted shape of the weight bound at every epoch of every pair; [] with fewer than 4 epochs.

    `rates` is the sum of the learning rates by epoch. The fit is least squares over slope and beta >= 0; it is not an
    upper bound.
    """
    if not gaps.is_file():
        return []
    table = whole_encoder(read_newest(gaps, "distance", "reference_digest", "arm_digest"), "global")
    table = table[table["distance"].notna()].sort_values("epoch")
    rows: list[Row] = []
    for (reference, arm), part in table.groupby(["reference", "arm"], sort=False):
        part = part[part["epoch"].isin(list(rates))]
        epochs, measured = part["epoch"].tolist(), part["distance"].to_numpy(float)
        totals = np.array([rates[epoch] for epoch in epochs])
        fit = {each.model: each for each in fits(totals, measured)}.get("exponential")
        if fit is None or isnan(fit.slope):
            continue
        fitted = {"fit_epochs": fit.points, "fit_last_epoch": epochs[-1], "slope": fit.slope, "beta": fit.rate}
        about = {"reference": reference, "arm": arm, "aggregate": "global", "bound": "exponential_shape", **fitted}
        sources = part[["reference_digest", "arm_digest"]].to_dict("records")
        for epoch, total, distance, source in zip(epochs, totals, measured, sources, strict=True):
            value = weight_distance(float(total), fit.slope, fit.rate)
            what = {"epoch": epoch, "of": "weight_distance", "value": value, "measured": distance}
            rows.append(cells(COLUMNS, **about, **what, **{str(key): digest for key, digest in source.items()}))
    return rows
