"""The matrix of one score of every pair of arms."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coupled.analysis.tables import largest_sample


class Matrix(NamedTuple):
    """Symmetric scores of every pair with 1 on the diagonal, and their standard deviations over seeds."""

    arms: list[str]
    scores_AA: NDArray[np.float64]
    deviations_AA: NDArray[np.float64] | None  # 0 on the diagonal; None for one seed
    rows: pd.DataFrame
    epoch: int


def cka_of_pairs(rows: pd.DataFrame, order: Sequence[str], command: str) -> Matrix:
    """CKA of h of every pair at the last epoch, of the largest sample, from rows of test_alignment.csv.

    Raises ValueError for fewer than three arms, and for a pair without a score; the message names `command`, which
    computes it.
    """
    rows = rows[(rows["metric"] == "cka") & (rows["module"] == "h")]
    rows = largest_sample(rows[rows["epoch"] == rows["epoch"].max()])
    arms = [arm for arm in order if arm in {*rows["reference"], *rows["arm"]}]
    if len(arms) < 3:
        raise ValueError(f"the table has scores of {len(arms)} arms; a matrix needs 3 or more")
    pairs = [frozenset(pair) for pair in rows[["reference", "arm"]].itertuples(index=False)]
    missing = [pair for pair in combinations(arms, 2) if frozenset(pair) not in pairs]
    if missing:
        one, other = missing[0]
        raise ValueError(f"no CKA score of arms '{one}' and '{other}'; compute every pair with: {command}")

    def symmetric(column: str, diagonal: float) -> NDArray[np.float64]:
        of = dict(zip(pairs, rows[column], strict=True))
        return np.array([[diagonal if a == b else of[frozenset((a, b))] for b in arms] for a in arms])

    deviations = symmetric("value_sd", 0.0) if "value_sd" in rows else None
    return Matrix(arms, symmetric("value", 1.0), deviations, rows, int(rows["epoch"].max()))
