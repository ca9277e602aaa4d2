"""The figure of every pair: arms by arms, the score of each pair in its cell."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.tables import largest_sample
from coupled.monitoring.commands import suggest


def alignment_matrix(rows: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """A symmetric map of the CKA of h in rows of test_alignment.csv, of the last epoch and the largest sample; the
    `arms` give the order. Raises ValueError for fewer than three arms, or a pair that is not there.
    """
    rows = rows[(rows["metric"] == "cka") & (rows["module"] == "h") & (rows["epoch"] == rows["epoch"].max())]
    rows = largest_sample(rows)
    arms = [arm for arm in arms if arm in {*rows["reference"], *rows["arm"]}]
    if len(arms) < 3:
        raise ValueError(f"{len(arms)} arms make no matrix; 3 or more do")
    values = {frozenset((a, b)): value for a, b, value in rows[["reference", "arm", "value"]].itertuples(index=False)}
    missing = [pair for pair in combinations(arms, 2) if frozenset(pair) not in values]
    if missing:
        command = suggest("alignment", "--compare", "all")
        raise ValueError(f"no score of {missing[0][0]} and {missing[0][1]}; compute every pair with: {command}")
    matrix = np.array([[1.0 if a == b else values[frozenset((a, b))] for b in arms] for a in arms])
    side = 1.6 + 0.5 * len(arms)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    lowest = float(np.nanmin(matrix))
    shown = axes.imshow(matrix, cmap="viridis", vmin=lowest, vmax=1)
    axes.set_xticks(range(len(arms)), arms, rotation=90)
    axes.set_yticks(range(len(arms)), arms)
    axes.set_title(f"CKA of h, test images, epoch {rows['epoch'].max()}", fontsize="medium")
    for (row, column), value in np.ndenumerate(matrix):
        dark = value < lowest + 0.6 * (1 - lowest)
        text = "-" if np.isnan(value) else f"{value:.2f}".removeprefix("0")
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    figure.colorbar(shown, ax=axes, shrink=0.7)
    return figure
