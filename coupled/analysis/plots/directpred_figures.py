"""The figures of `coupled directpred-theory`: phase portraits, the invariant parabola, the sweep."""

from math import nan
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import grid, plain
from coupled.analysis.selections.styles import COLOURS
from coupled.analysis.theory.directpred_model import (
    Model,
    fixed_points,
    parabola_field,
    plane_field,
    plane_fixed_points,
)

P_RANGE, S_RANGE = (-0.5, 1.1), (0.0, 1.1)
NAMES = {"invariant": "theorem 1: invariant", "commutator": "theorem 3: commutator of F and $W_p$"}


def draw(tables: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    """The figures by file name, from the tables of the program."""
    points, theorems = tables["directpred_fixed_points.csv"], tables["directpred_theorems.csv"]
    return {
        "directpred_phase": phase(tables["directpred_trajectories.csv"], points),
        "directpred_parabola": parabola(theorems),
        "directpred_sweep": sweep(tables["directpred_sweep.csv"]),
    }


def model_of(rows: pd.DataFrame) -> Model:
    """The model of the first row, without an EMA and without weight decay."""
    return Model(float(rows["alpha_p"].iloc[0]), 0.0, 1.0, float(rows["sigma2"].iloc[0]))


def phase(trajectories: pd.DataFrame, points: pd.DataFrame) -> Figure:
    """Phase portraits of (p, s) without an EMA, one per weight decay: field, trajectories, parabola, fixed points."""
    etas = list(dict.fromkeys(trajectories["eta"]))
    figure, panels = grid(len(etas))
    p, s = np.meshgrid(np.linspace(*P_RANGE, 30), np.linspace(*S_RANGE, 30))
    for axes, eta in zip(panels, etas, strict=True):
        model = model_of(trajectories)._replace(eta=eta)
        axes.streamplot(p, s, *plane_field(model, p, s), color="0.8", linewidth=0.5, arrowsize=0.6, density=0.7)
        for _, part in trajectories[trajectories["eta"] == eta].groupby("start"):
            axes.plot(part["p"], part["s"], color=COLOURS[0], linewidth=1)
        along = np.linspace(*P_RANGE, 200)
        axes.plot(along, along**2 / model.alpha_p, color=COLOURS[1], linestyle="--", label=r"$s = p^2/\alpha_p$")
        if eta == 0:
            axes.axvline(1 / model.k, color="k", linewidth=1, label="line of fixed points")
        here = points[(points["eta"] == eta) & points["beta"].isna()]
        for stable, face in (("yes", "k"), ("no", "w")):
            part = here[here["stable"] == stable]
            dots: dict[str, Any] = {"facecolor": face, "edgecolor": "k", "zorder": 3, "s": 30, "clip_on": False}
            axes.scatter(part["p"], part["s"], label="stable" if stable == "yes" else "unstable", **dots)
        axes.set(xlim=P_RANGE, ylim=S_RANGE, xlabel="p", ylabel="s")
        axes.set_title(rf"$\eta$ = {eta:g}", fontsize="medium")
    _legend(figure)
    return figure


def parabola(theorems: pd.DataFrame) -> Figure:
    """The flow along the parabola, its fixed points against the weight decay, and theorems 1 and 3 over time."""
    figure = Figure(figsize=(12.0, 3.0), layout="constrained")
    flow, fork, *over_time = figure.subplots(1, 4)
    etas, along = list(dict.fromkeys(theorems["eta"])), np.linspace(0, P_RANGE[1], 200)
    for eta, colour in zip(etas, COLOURS * len(etas), strict=False):
        model = model_of(theorems)._replace(eta=eta)
        flow.plot(along, parabola_field(model, along), color=colour, label=rf"$\eta$ = {eta:g}")
        for axes, of in zip(over_time, NAMES, strict=True):
            rows = theorems[(theorems["eta"] == eta) & (theorems["of"] == of)]
            axes.semilogy(rows["time"], rows["measured"], color=colour)
            axes.semilogy(rows["time"], rows["value"], color="k", linestyle=":", linewidth=1)
    flow.axhline(0, color="k", linewidth=0.5)
    flow.set(xlabel="p", ylabel="dp/dt on the parabola", ylim=(-0.15, 0.15))
    model = model_of(theorems)
    decays = np.linspace(0, model.largest_decay, 400)[1:-1]
    found = [{each.point: each.p for each in plane_fixed_points(model._replace(eta=float(eta)))} for eta in decays]
    fork.plot(decays, [each["upper"] for each in found], "k-", label="stable")
    fork.plot(decays, [each["lower"] for each in found], "k--", label="unstable")
    fork.axhline(0, color="k", linewidth=2.5)
    fork.set(xlabel=r"weight decay $\eta$", ylabel="fixed points p", xlim=(0, 1.31 * model.largest_decay))
    for axes, name in zip(over_time, NAMES.values(), strict=True):
        axes.set(xlabel="time", ylim=(1e-9, 10))
        axes.set_title(f"{name}\n(dotted: as the theorem says)", fontsize="medium")
    for axes in figure.axes:
        plain(axes)
    _legend(figure)
    return figure


def sweep(rows: pd.DataFrame) -> Figure:
    """Where a mode ends, and how fast it returns to the upper fixed point, over weight decay and EMA rate."""
    figure = Figure(figsize=(8.8, 3.4), layout="constrained")
    model = model_of(rows)

    def rate(row: pd.Series) -> float:
        points = fixed_points(model._replace(eta=float(row["eta"]), beta=float(row["beta"])))
        return {each.point: -each.eigenvalue for each in points}.get("upper", nan)

    start = f"from p = {rows['start_p'].iloc[0]:g}, s = {rows['start_s'].iloc[0]:g}"
    values = {f"p at the end, {start}": rows["p"], "rate of return to the upper fixed point": rows.apply(rate, axis=1)}
    for axes, (title, value) in zip(figure.subplots(1, 2), values.items(), strict=True):
        cells = rows.assign(value=value).pivot(index="beta", columns="eta", values="value")
        image = axes.pcolormesh(cells.columns, cells.index, cells, cmap="cividis", shading="nearest", vmin=0)
        axes.axvline(model.largest_decay, color="0.6", linestyle="--", label=r"$1 / (4 (1 + \sigma^2))$")
        axes.set(yscale="log", xlabel=r"weight decay $\eta$", ylabel=r"EMA rate $\beta$")
        axes.set_title(title, fontsize="medium")
        figure.colorbar(image, ax=axes)
    _legend(figure)
    return figure


def _legend(figure: Figure) -> None:
    """One legend above all panels."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(list(found.values()), list(found), loc="outside upper center", ncols=8, frameon=False)
