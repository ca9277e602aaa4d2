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
    "flow": ("--", "lemma 1 with the run's views"),
    "value": (":", "decoupled modes ($s_j$, $p_j$), theorem 1 (invariant)"),
}
PANELS = {
    "s": "eigenvalues $s_j$ of $F$",
    "p": "$p_j = u_j^T W_p u_j$",
    "invariant": "invariant\n" + r"$||W W^T - W_p^T W_p / \alpha_p||$",
    "commutator": "commutator\n$||F W_p - W_p F||$",
}
NAMED = 8  # modes in the legend; of more, the first and the last


def draw(rows: pd.DataFrame) -> Figure:
    """One row of panels per arm: eigenvalues s_j of F and p_j of W_p, the invariant of theorem 1, the commutator."""
    arms, colours = list(dict.fromkeys(rows["arm"])), _colours(rows)
    figure = Figure(figsize=(11.0, 1.1 + 1.9 * len(arms)), layout="constrained")
    panels = figure.subplots(len(arms), len(PANELS), squeeze=False)
    for (arm, line), of in ((each, of) for each in zip(arms, panels, strict=True) for of in PANELS):
        axes: Axes = line[list(PANELS).index(of)]
        _curves(axes, rows[(rows["arm"] == arm) & (rows["of"] == of)], colours)
        plain(axes)
        if of in ("invariant", "commutator"):
            axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        if arm == arms[0]:
            axes.set_title(PANELS[of], fontsize="medium", pad=10)
        if arm == arms[-1]:
            axes.set_xlabel("sum of learning rates")
        if of == "s":
            axes.set_ylabel(arm)
    handles = [Line2D([], [], color="k", linestyle=dash, label=name) for dash, name in KINDS.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, handlelength=3.5)
    named = [*colours] if len(colours) <= NAMED else [min(colours), max(colours)]
    of_modes = [Line2D([], [], color=colours[j], label=f"$j$ = {j}") for j in named]
    of_modes[0].set_label(f"$j$ = {named[0]}, the largest $s_j$")
    figure.legend(handles=of_modes, loc="outside lower center", ncols=NAMED, frameon=False)
    return figure


def _colours(rows: pd.DataFrame) -> dict[int, Any]:
    """The colour of each mode j of all arms."""
    modes = sorted(rows["component"].dropna().astype(int).unique().tolist())
    return {j: colormaps["viridis"](0.9 * place / max(1, len(modes) - 1)) for place, j in enumerate(modes)}


def _curves(axes: Axes, rows: pd.DataFrame, colours: dict[int, Any]) -> None:
    """Draw each mode in its colour, and a norm in black, with the three kinds of values in different dashes."""
    for mode, part in rows.groupby(rows["component"].fillna(0).astype(int)):
        colour = colours.get(int(str(mode)), "black")
        for column, (dash, _) in KINDS.items():
            if part[column].notna().any():
                axes.plot(part["time"], part[column].astype(float), linestyle=dash, color=colour, linewidth=1.2)
