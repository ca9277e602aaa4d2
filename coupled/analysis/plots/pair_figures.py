"""The figures that compare arms with the reference: weight gap and alignment, over epochs and layers."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coupled.analysis.plots.drawing import grid, layer_sort_key, line, over_epochs, plain
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.tables import largest_sample, whole_encoder
from coupled.monitoring.commands import suggest

ALIGNMENTS = {"cka": "CKA", "rsa": "RSA"}
WIDE: dict[str, Any] = {"width": 3.2, "height": 2.8}  # size of a panel over epochs


def drift(tables: FigureTables) -> Figure:
    """Return the figure of weight gap, CKA and RSA over epochs, with the noise floor of the reference's twins.

    A metric that was not computed has no panel.
    """
    gaps, scores = whole_encoder(tables.gaps(), "mean"), tables.scores()
    gaps = gaps.assign(value=gaps["gap"])
    panels = [(gaps, f"weight gap to {tables.reference}, mean over layers", 0.0)]
    for name, rows in scores_of_h(scores).items():
        panels.append((rows, f"{name} with {tables.reference}, test images, h", 1.0))
    figure, cells = grid(len(panels), **WIDE)
    for axes, (rows, label, equal_arms) in zip(cells, panels, strict=True):
        _draw_noise_floor(axes, rows, equal_arms, tables)
        for arm in tables.arms(rows):
            curve = rows[rows["arm"] == arm].sort_values("epoch")
            if "ci_low" in curve and curve["ci_low"].notna().any():
                shade: dict[str, Any] = {"color": tables.styles[arm].color, "alpha": 0.15, "linewidth": 0}
                axes.fill_between(curve["epoch"], curve["ci_low"], curve["ci_high"], **shade)
            line(axes, curve["epoch"], curve["value"], arm, tables.styles[arm])
        over_epochs(axes)
        axes.set_title(label, fontsize="medium")
    cells[0].set_ylim(bottom=0)
    add_legend(figure, tables)
    return figure


def scores_of_h(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of h of each metric of `ALIGNMENTS` that was computed, by its name in the figures."""
    of_h = scores[scores["module"] == "h"]
    rows = {name: of_h[of_h["metric"] == metric] for metric, name in ALIGNMENTS.items()}
    return {name: each for name, each in rows.items() if len(each)}


def missing_panels(tables: FigureTables) -> str:
    """Return a line on the metrics that test_alignment.csv lacks, with the command that adds them; "" if complete.

    Without rows of this reference there is no line, because the figures that need them say so.
    """
    try:
        computed = scores_of_h(tables.scores())
    except ValueError:
        return ""
    lacking = [metric for metric, name in ALIGNMENTS.items() if name not in computed]
    if not lacking:
        return ""
    names, table = " and ".join(ALIGNMENTS[metric] for metric in lacking), tables.folder / "test_alignment.csv"
    return f"no panels of {names}: {table} has no such rows of h; add them with: {_command(tables, lacking)}"


def _command(tables: FigureTables, metrics: Sequence[str]) -> str:
    """Return the command line that computes these metrics of h on test."""
    where = ("--run-dir", str(tables.folder.parent), "--reference", tables.reference)
    return suggest("alignment", *where, "--split", "test", "--layers", "h", "--metrics", *metrics)


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
    figure, panels = grid(len(arms), width=2.9, height=max(2.2, 0.8 + 0.3 * len(layers)), sharey=True)
    for axes, arm in zip(panels, arms, strict=True):
        cells = rows[rows["arm"] == arm].pivot(index="module", columns="epoch", values="value").reindex(layers)
        image = axes.imshow(cells, aspect="auto", origin="lower", cmap="cividis", vmin=scale[0], vmax=scale[1])
        ticks = np.unique(np.linspace(0, cells.shape[1] - 1, min(6, cells.shape[1])).astype(int))
        axes.set_xticks(ticks, [str(cells.columns[i]) for i in ticks])
        axes.set_yticks(range(len(layers)), layers)
        axes.set_title(arm, fontsize="medium")
        axes.set_xlabel("epoch")
    figure.colorbar(image, ax=figure.axes, label=label, fraction=0.05)
    return figure


def gap_alignment(tables: FigureTables) -> Figure:
    """Return the figure of alignment against weight gap, one path per arm; rings mark the last epoch.

    A metric that was not computed has no panel. Raises ValueError if no epoch has both.
    """
    gaps, scores = tables.gaps(), scores_of_h(tables.scores())
    gaps = whole_encoder(gaps, "mean")[["epoch", "arm", "gap"]]
    joined = {name: rows.merge(gaps, on=["epoch", "arm"]) for name, rows in scores.items()}
    panels = {name: rows for name, rows in joined.items() if len(rows)}
    if not panels:
        raise ValueError(
            f"{tables.folder}: weight_gap.csv and test_alignment.csv have no epoch of h in common; compute it with:"
            f" {_command(tables, list(ALIGNMENTS))}"
        )
    figure, cells = grid(len(panels), width=3.8, height=2.8)
    last = last_epoch_label(panels.values())
    for axes, (name, rows) in zip(cells, panels.items(), strict=True):
        rows = rows[~rows["arm"].isin(tables.twins)]
        for arm in tables.arms(rows):
            curve = rows[rows["arm"] == arm].sort_values("epoch")
            line(axes, curve["gap"], curve["value"], arm, tables.styles[arm])
        draw_rings(axes, rows, "gap", "value", last)
        plain(axes)
        axes.set_title(f"{name} with {tables.reference}, test images, h", fontsize="medium")
        axes.set_xlabel(f"weight gap to {tables.reference}, mean over layers")
    add_legend(figure, tables)
    return figure


def last_epoch_label(panels: Iterable[pd.DataFrame]) -> str:
    """Return the label of the rings: "epoch 20", or "last epoch" if the panels end at different epochs."""
    last = {int(rows["epoch"].max()) for rows in panels}
    return f"epoch {last.pop()}" if len(last) == 1 else "last epoch"


def draw_rings(axes: Axes, rows: pd.DataFrame, x: str, y: str, label: str) -> None:
    """Draw a ring around the points of the last epoch of the rows."""
    last = rows[rows["epoch"] == rows["epoch"].max()]
    ring: dict[str, Any] = {"marker": "o", "s": 110, "facecolor": "none", "edgecolor": "0.4", "linewidth": 1}
    axes.scatter(last[x], last[y], label=label, clip_on=False, **ring)


def angles(tables: FigureTables) -> Figure:
    """Return the figure of the angles of weights and representations to the reference over epochs, in degrees.

    The angle of the weights is that of the encoder's weights as one vector. The angle of the representations is arccos
    of CKA and of RSA, which are cosines of two vectors; a metric that was not computed has no panel. Source: arXiv
    2510.08852 opens with such angles; its definition of the weights' angle is not known.
    """
    gaps, scores = whole_encoder(tables.gaps("angle"), "global"), tables.scores()
    panels = [(gaps.assign(value=gaps["angle"]), "angle of the weights")]
    for name, rows in scores_of_h(scores).items():
        degrees = np.degrees(np.arccos(rows["value"].clip(-1, 1)))
        panels.append((rows.assign(value=degrees), f"arccos of {name}, test images, h"))
    figure, cells = grid(len(panels), **WIDE, sharey=True)
    for axes, (rows, label) in zip(cells, panels, strict=True):
        for arm in tables.arms(rows):
            curve = rows[rows["arm"] == arm].sort_values("epoch")
            line(axes, curve["epoch"], curve["value"], arm, tables.styles[arm])
        over_epochs(axes)
        axes.set_title(label, fontsize="medium")
    cells[0].set_ylabel(f"degrees to {tables.reference}")
    cells[0].set_ylim(bottom=0)
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
