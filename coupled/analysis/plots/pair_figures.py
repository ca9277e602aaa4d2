"""The figures that compare arms with the reference: weight gap and alignment, over epochs and layers."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coupled.analysis.plots.drawing import layer_sort_key, line, over_epochs, plain
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.tables import largest_sample, whole_encoder
from coupled.monitoring.commands import suggest

ALIGNMENTS = {"cka": "CKA", "rsa": "RSA"}


def drift(tables: FigureTables) -> Figure:
    """Return the figure of weight gap, CKA and RSA over epochs, with the noise floor of the reference's twins."""
    gaps, scores = whole_encoder(tables.gaps(), "mean"), tables.scores()
    gaps = gaps.assign(value=gaps["gap"])
    figure = Figure(figsize=(10.0, 3.2), layout="constrained")
    panels = [(gaps, f"weight gap to {tables.reference}, mean over layers", 0.0)]
    for metric, name in ALIGNMENTS.items():
        rows = scores[(scores["metric"] == metric) & (scores["module"] == "h")]
        panels.append((rows, f"{name} with {tables.reference}, test images, h", 1.0))
    for axes, (rows, label, equal_arms) in zip(figure.subplots(1, 3), panels, strict=True):
        _draw_noise_floor(axes, rows, equal_arms, tables)
        for arm in tables.arms(rows):
            curve = rows[rows["arm"] == arm].sort_values("epoch")
            if "ci_low" in curve and curve["ci_low"].notna().any():
                shade = {"color": tables.styles[arm].color, "alpha": 0.15, "linewidth": 0}
                axes.fill_between(curve["epoch"], curve["ci_low"], curve["ci_high"], **shade)
            line(axes, curve["epoch"], curve["value"], arm, tables.styles[arm])
        over_epochs(axes)
        axes.set_title(label, fontsize="medium")
    figure.axes[0].set_ylim(bottom=0)
    add_legend(figure, tables)
    return figure


def _draw_noise_floor(axes: Axes, rows: pd.DataFrame, equal_arms: float, tables: FigureTables) -> None:
    """Draw a band from the value `equal_arms` to that of the most distant twin of the reference."""
    twins = rows[rows["arm"].isin(tables.twins)].groupby("epoch")["value"]
    if len(twins):
        farthest = twins.max() if equal_arms == 0 else twins.min()
        band: dict[str, Any] = {"facecolor": "0.85", "edgecolor": "0.6", "linewidth": 3, "clip_on": False, "zorder": 1}
        label = f"noise floor ({tables.reference}'s twin)"
        axes.fill_between(farthest.index, equal_arms, farthest, label=label, **band)


def layers_alignment(tables: FigureTables) -> Figure:
    """Return heat maps of CKA by layer and epoch, one per arm."""
    scores = tables.scores()
    return _heat_maps(
        tables, scores[scores["metric"] == "cka"], f"CKA with {tables.reference}, test images", lowest=None
    )


def layers_gap(tables: FigureTables) -> Figure:
    """Return heat maps of the weight gap by stage and epoch, one per arm."""
    gaps = tables.gaps()
    gaps = gaps[(gaps["aggregate"] == "mean") & gaps["module"].notna()]
    return _heat_maps(tables, gaps.assign(value=gaps["gap"]), f"weight gap to {tables.reference}", lowest=0.0)


def _heat_maps(tables: FigureTables, rows: pd.DataFrame, label: str, lowest: float | None) -> Figure:
    """Return one map per arm with a common colour scale, first layer at the bottom. Raises ValueError without rows."""
    arms, layers = tables.arms(rows), sorted(dict.fromkeys(rows["module"]), key=layer_sort_key)
    if not arms:
        raise ValueError(f"{tables.folder}: no rows of '{label}'")
    values = rows[rows["arm"].isin(arms)]["value"]
    scale = (values.min() if lowest is None else lowest, max(1.0, values.max()) if lowest is None else values.max())
    figure = Figure(figsize=(1.4 + 2.9 * len(arms), max(2.6, 1.2 + 0.3 * len(layers))), layout="constrained")
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for axes, arm in zip(panels, arms, strict=True):
        cells = rows[rows["arm"] == arm].pivot(index="module", columns="epoch", values="value").reindex(layers)
        image = axes.imshow(cells, aspect="auto", origin="lower", cmap="cividis", vmin=scale[0], vmax=scale[1])
        ticks = np.unique(np.linspace(0, cells.shape[1] - 1, min(6, cells.shape[1])).astype(int))
        axes.set_xticks(ticks, [str(cells.columns[i]) for i in ticks])
        axes.set_yticks(range(len(layers)), layers)
        axes.set_title(arm, fontsize="medium")
        axes.set_xlabel("epoch")
    figure.colorbar(image, ax=list(panels), label=label, fraction=0.05)
    return figure


def gap_alignment(tables: FigureTables) -> Figure:
    """Return the figure of alignment against weight gap, one path per arm; rings mark the last epoch."""
    gaps, scores = tables.gaps(), tables.scores()
    gaps = whole_encoder(gaps, "mean")[["epoch", "arm", "gap"]]
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    for axes, (metric, name) in zip(figure.subplots(1, 2), ALIGNMENTS.items(), strict=True):
        rows = scores[(scores["metric"] == metric) & (scores["module"] == "h")].merge(gaps, on=["epoch", "arm"])
        rows = rows[~rows["arm"].isin(tables.twins)]
        for arm in tables.arms(rows):
            curve = rows[rows["arm"] == arm].sort_values("epoch")
            line(axes, curve["gap"], curve["value"], arm, tables.styles[arm])
        last = rows[rows["epoch"] == rows["epoch"].max()]
        ring = {"marker": "o", "s": 110, "facecolor": "none", "edgecolor": "0.4", "linewidth": 1}
        axes.scatter(last["gap"], last["value"], label=f"epoch {rows['epoch'].max()}", clip_on=False, **ring)
        plain(axes)
        axes.set_title(f"{name} with {tables.reference}, test images, h", fontsize="medium")
        axes.set_xlabel(f"weight gap to {tables.reference}, mean over layers")
    add_legend(figure, tables)
    return figure


def angles(tables: FigureTables) -> Figure:
    """Return the figure of the angles of weights and representations to the reference over epochs, in degrees.

    The angle of the weights is that of the encoder's weights as one vector. The angle of the representations is arccos
    of CKA and of RSA, which are cosines of two vectors. Source: arXiv 2510.08852 opens with such angles; its definition
    of the weights' angle is not known.
    """
    gaps, scores = whole_encoder(tables.gaps("angle"), "global"), tables.scores()
    panels = [(gaps.assign(value=gaps["angle"]), "angle of the weights")]
    for metric, name in ALIGNMENTS.items():
        rows = scores[(scores["metric"] == metric) & (scores["module"] == "h")]
        degrees = np.degrees(np.arccos(rows["value"].clip(-1, 1)))
        panels.append((rows.assign(value=degrees), f"arccos of {name}, test images, h"))
    figure = Figure(figsize=(10.0, 3.2), layout="constrained")
    for axes, (rows, label) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        for arm in tables.arms(rows):
            curve = rows[rows["arm"] == arm].sort_values("epoch")
            line(axes, curve["epoch"], curve["value"], arm, tables.styles[arm])
        over_epochs(axes)
        axes.set_title(label, fontsize="medium")
    figure.axes[0].set_ylabel(f"degrees to {tables.reference}")
    figure.axes[0].set_ylim(bottom=0)
    add_legend(figure, tables)
    return figure


def matrix(tables: FigureTables) -> Figure:
    """Return the matrix of CKA of h on test for every pair of arms, at the last epoch."""
    every_pair = suggest("alignment", "--run-dir", str(tables.folder.parent), "--compare", "all")
    return alignment_matrix(tables.read("test_alignment.csv", "value"), list(tables.styles), every_pair)


def alignment_matrix(rows: pd.DataFrame, order: Sequence[str], command: str = "alignment --compare all") -> Figure:
    """Return the symmetric matrix of CKA of h from rows of test_alignment.csv, at the last epoch, largest sample.

    Raises ValueError for fewer than three arms, and for a pair without a score; the message names `command`, which
    computes it.
    """
    rows = rows[(rows["metric"] == "cka") & (rows["module"] == "h") & (rows["epoch"] == rows["epoch"].max())]
    arms, scores_AA = _scores_of_pairs(largest_sample(rows), order, command)
    side = 1.6 + 0.5 * len(arms)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    lowest = float(np.nanmin(scores_AA))
    image = axes.imshow(scores_AA, cmap="viridis", vmin=lowest, vmax=1)
    axes.set_xticks(range(len(arms)), arms, rotation=90)
    axes.set_yticks(range(len(arms)), arms)
    axes.set_title(f"CKA of h, test images, epoch {rows['epoch'].max()}", fontsize="medium")
    for (row, column), value in np.ndenumerate(scores_AA):
        dark = value < lowest + 0.6 * (1 - lowest)
        text = "-" if np.isnan(value) else f"{value:.2f}".removeprefix("0")
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    figure.colorbar(image, ax=axes, shrink=0.7)
    return figure


def _scores_of_pairs(rows: pd.DataFrame, order: Sequence[str], command: str) -> tuple[list[str], NDArray[np.float64]]:
    """Return the arms of the rows in `order`, and the symmetric matrix of their scores with 1 on the diagonal."""
    arms = [arm for arm in order if arm in {*rows["reference"], *rows["arm"]}]
    if len(arms) < 3:
        raise ValueError(f"the table has scores of {len(arms)} arms; a matrix needs 3 or more")
    scores = {frozenset((a, b)): value for a, b, value in rows[["reference", "arm", "value"]].itertuples(index=False)}
    missing = [pair for pair in combinations(arms, 2) if frozenset(pair) not in scores]
    if missing:
        one, other = missing[0]
        raise ValueError(f"no CKA score of arms '{one}' and '{other}'; compute every pair with: {command}")
    return arms, np.array([[1.0 if a == b else scores[frozenset((a, b))] for b in arms] for a in arms])
