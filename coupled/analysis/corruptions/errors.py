"""Mean corruption errors, from the rows of robustness.csv."""

from math import nan

import pandas as pd

from coupled.analysis.corruptions.constants import SEVERITIES
from coupled.analysis.schemas import SCHEMAS

SUMMARY = "robustness_mce.csv"
NO_CORRUPTION = "none"
SET = ["epoch", "split", "source", "num_images"]


def mean_corruption_errors(rows: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return mean errors, and corruption errors relative to the reference arm.

        CE_c = sum_s E_sc / sum_s E'_sc,  relative CE_c = (sum_s E_sc - 5 E) / (sum_s E'_sc - 5 E'),
        mCE = mean over c of CE_c

    E_sc is the error of the arm at severity s of corruption c, E its error on clean images, and E' those of the
    reference arm, which is AlexNet in the paper; CE_c is the corruption error and mCE the mean corruption error. A
    corruption counts if both arms have all five severities of it; the column `corruptions` is their number. A quotient
    with a denominator of 0 or less is NaN.

    Args:
        rows: rows of robustness.csv, without repeated ones.
        reference: the reference arm.

    Returns:
        The rows of robustness_mce.csv with its columns (see `schemas.SCHEMAS`); none without rows of the reference.

    Source: Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4.1.
    """
    found: list[tuple[object, ...]] = []
    for where, group in rows.groupby(SET, sort=False):
        most = group.groupby(["arm", "variant"])["num_train_images"].transform("max")
        group = group[group["num_train_images"].isna() | (group["num_train_images"] == most)]
        curves = {key: _errors(part) for key, part in group.groupby(["arm", "variant"], sort=False)}
        for (other, reference_variant), of_reference in curves.items():
            if other != reference:
                continue
            for (arm, variant), of_arm in curves.items():
                start = (*where[:3], reference, arm, reference_variant, variant)
                found += [(*start, *values, where[3]) for values in _scores(of_arm, of_reference)]
    return pd.DataFrame(found, columns=list(SCHEMAS[SUMMARY].columns))


def _errors(rows: pd.DataFrame) -> dict[str, dict[int, float]]:
    """Return the errors by corruption and severity."""
    return {
        str(name): dict(zip(part["severity"], part["value"], strict=True)) for name, part in rows.groupby("corruption")
    }


def _scores(
    arm: dict[str, dict[int, float]], reference: dict[str, dict[int, float]]
) -> list[tuple[str, str, int, float]]:
    """Return metric, corruption, number of corruptions and value of each score of an arm."""
    whole = [name for name in arm if all({*SEVERITIES} <= {*each.get(name, ())} for each in (arm, reference))]
    clean, of_reference = (SEVERITIES[-1] * each.get(NO_CORRUPTION, {}).get(0, nan) for each in (arm, reference))
    scores: dict[str, list[float]] = {"error": [], "ce": [], "relative_ce": []}
    for name in whole:
        total, of_other = sum(arm[name].values()), sum(reference[name].values())
        scores["error"].append(total / len(SEVERITIES))
        scores["ce"].append(_quotient(total, of_other))
        scores["relative_ce"].append(_quotient(total - clean, of_other - of_reference))
    found = [(metric, name, 1, each[k]) for metric, each in scores.items() for k, name in enumerate(whole)]
    means = {"error": "error", "mce": "ce", "relative_mce": "relative_ce"}
    if whole:
        found += [(name, "", len(whole), sum(scores[of]) / len(whole)) for name, of in means.items()]
    return found


def _quotient(one: float, other: float) -> float:
    return one / other if other > 0 else nan
