"""Select the values of every seed from the tables of a sweep: docs/reproduction/<sweep>.csv.

`select` takes the rows of coupled.sweep.tables.collect. A file has one value per row and the columns of COLUMNS that
apply, after the swept keys. All means, verdicts, tables and figures of docs/reproduction.md are computed from these
files alone, so the runs can be deleted. Scores of pairs compare `arm` with `reference`; of all epochs only those with
the reference `cl` are kept, of the last epoch those of all pairs.
"""

from pathlib import Path
from typing import Any

import pandas as pd

COLUMNS = ("seed", "epoch", "reference", "arm", "task", "shots", "component", "score", "value")
GLOBAL = "global weight gap"  # of all weights as one vector
GAP = "weight gap"  # mean over layers
DIFFERENCE = "DCL - NSCL"
CORRELATION = "correlation of the losses"
CENTRE, PROBE = "nearest centre", "linear probe"
ERROR = "measured error"
SPREAD, RANK, ALIGNED = "spread of z", "effective rank of z", "W aligned with F"
SATURATES, EXPLODES = "rmse of a saturating curve", "rmse of an exponential"
BOUNDS = ("proposition_1", "documented_form")
SHOTS = (1, 5, 20, 100)
FIRST = 5  # number of eigenvectors with the largest eigenvalues
H: dict[str, Any] = {"module": "h"}
UNIT: dict[str, Any] = {"loss_temperature": 1}  # as in the paper
MEAN: dict[str, Any] = {"metric": "gap", "aggregate": "mean", "module": None}

# Name of the score, table of the run, and the cells that its rows have; None is an empty cell.
SELECTIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("CKA", "test_alignment", {"metric": "cka", **H}),
    ("RSA", "test_alignment", {"metric": "rsa", **H}),
    (GAP, "weight_gap", MEAN),
    (GLOBAL, "weight_gap", {**MEAN, "aggregate": "global"}),
    ("weight gap, channels matched", "weight_gap_permutation", MEAN),
    (CENTRE, "quality", {"metric": "nccc", "variant": "euclidean", **H}),
    (PROBE, "quality", {"metric": "linear_probe", "variant": "regularised", **H}),
    ("20 neighbours", "quality", {"metric": "knn", "variant": "cosine", **H}),
    ("effective rank", "quality", {"metric": "effective_rank", "variant": "centred", **H}),
    ("calibration error of the probe", "quality", {"metric": "probe_calibration", "variant": "ece"}),
    ("mCE", "robustness_mce", {"metric": "mce"}),
    ("lost accuracy between the weights", "barrier_height", {"metric": "nccc/none"}),
    ("lost accuracy, channels matched", "barrier_height", {"metric": "nccc/permutation"}),
    ("NSCL barrier (nats)", "barrier_height", {"metric": "nscl/none"}),
    ("NSCL barrier, channels matched (nats)", "barrier_height", {"metric": "nscl/permutation"}),
    (DIFFERENCE, "loss_gap", {"metric": "gap", **UNIT}),
    ("bound of the batches", "loss_gap", {"metric": "bound", **UNIT}),
    ("bound of the dataset", "loss_gap", {"metric": "set_bound", **UNIT}),
    (CORRELATION, "loss_correlation", UNIT),
    (SPREAD, "collapse", {"metric": "spread", "module": "z"}),
    (RANK, "collapse", {"metric": "effective_rank", "module": "z"}),
    (ALIGNED, "collapse", {"metric": "eigenspace_alignment"}),
    (SATURATES, "weight_gap_growth", {"metric": "rmse", "model": "saturation"}),
    (EXPLODES, "weight_gap_growth", {"metric": "rmse", "model": "exponential"}),
    *((form, "bounds", {"bound": form, "quantity": "value", "of": "nccc_error"}) for form in BOUNDS),
    (ERROR, "bounds", {"bound": BOUNDS[0], "quantity": "measured", "of": "nccc_error"}),
)


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The values of all seeds, epochs, arms and scores. Columns without a value are left out.

    Raises ValueError if a score has two values for the same seed, epoch and arms: a mean of them would have no meaning.
    """
    keys = list(rows.columns[: list(rows.columns).index("run")].drop("seed", errors="ignore"))
    parts = []
    for score, table, cells in SELECTIONS:
        chosen = rows[rows["table"] == table]
        for column, value in cells.items():
            chosen = chosen[chosen[column].isna() if value is None else chosen[column] == value]
        parts.append(chosen.assign(score=score))
    values = pd.concat([part for part in parts if len(part)], ignore_index=True)
    values = values[(values["component"].isna()) | (values["component"] <= FIRST)]
    values = values[(values["shots"].isna()) | values["shots"].isin(SHOTS)]
    final = values.groupby("run")["epoch"].transform("max")
    of_cl = values["reference"].isna() | (values["reference"] == "cl") | (values["epoch"] == final)
    values = values[of_cl][[*keys, *COLUMNS]].drop_duplicates()
    case = [column for column in values if column != "value"]
    if values.duplicated(case).any():
        twice = values[values.duplicated(case)].iloc[0]
        raise ValueError(
            f"{twice['score']} of arm {twice['arm']}, epoch {twice['epoch']}: two values; name what differs"
        )
    return values.dropna(axis="columns", how="all").reset_index(drop=True)


def read(path: Path) -> pd.DataFrame:
    """The values of a sweep from its file. A file without the column `reference` has no scores of pairs."""
    values = pd.read_csv(path)
    return values if "reference" in values else values.assign(reference="cl")


def write(values: pd.DataFrame, path: Path) -> None:
    """Write the values of a sweep, with six significant digits."""
    values.to_csv(path, index=False, float_format="%.6g")
