"""The figure of `coupled directpred-theory --run-dir`: modes and norms in training, in lemma 1, and in the theory."""

from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from coupled.analysis.plots.drawing import plain

# columns of the table -> line, name
KINDS: dict[str, tuple[Any, str]] = {
    "measured": ("-", "training"),
    "flow": ("--", "lemma 1"),
    "value": (":", "theory"),
}
PANELS = {
    "s": "$s_j$",
    "p": "$p_j$",
    "invariant": r"$||W W^T - W_p^T W_p / \alpha_p||$",
    "commutator": "$||F W_p - W_p F||$",
}


def draw(rows: pd.DataFrame) -> Figure:
    """One row of panels per arm: eigenvalues s_j of F and p_j of W_p, the invariant of theorem 1, the commutator."""
    arms = list(dict.fromkeys(rows["arm"]))
    figure = Figure(figsize=(11.0, 0.7 + 1.9 * len(arms)), layout="constrained")
    panels = figure.subplots(len(arms), len(PANELS), squeeze=False)
    for (arm, line), of in ((each, of) for each in zip(arms, panels, strict=True) for of in PANELS):
        axes: Axes = line[list(PANELS).index(of)]
        _curves(axes, rows[(rows["arm"] == arm) & (rows["of"] == of)])
        plain(axes)
        if of in ("invariant", "commutator"):
            axes.set_ylim(bottom=0)
        if arm == arms[0]:
            axes.set_title(PANELS[of], fontsize="medium", pad=10)
        if arm == arms[-1]:
            axes.set_xlabel("time: sum of learning rates")
        if of == "s":
            axes.set_ylabel(arm)
    handles = [Line2D([], [], color="k", linestyle=dash, label=name) for dash, name in KINDS.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, handlelength=3.5)
    return figure


def _curves(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw every component in its own colour, with the three kinds of values in different dashes."""
    components = sorted(rows["component"].fillna(0).unique())
    for place, (_, part) in enumerate(rows.assign(component=rows["component"].fillna(0)).groupby("component")):
        colour: Any = colormaps["viridis"](0.9 * place / max(1, len(components) - 1))
        for column, (dash, _) in KINDS.items():
            if part[column].notna().any():
                axes.plot(part["time"], part[column].astype(float), linestyle=dash, color=colour, linewidth=1.2)
