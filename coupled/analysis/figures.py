"""The figures of a run, from the tables of the other analysis programs, as PNG and PDF.

python analysis/figures.py [--run-dir DIR] [--reference ARM]

Writes into analysis/figures of the run what its tables allow, and says which program makes a table that is not there:
* drift: weight gap and alignment (CKA and RSA of h on test) against epochs. Where the run has twins of the reference,
  arms with its objective, options and draws, a grey band shows how far such arms part: the noise floor, which has a
  height only if a bit of a twin was moved (`perturb`). Shades around a curve are confidence intervals, where
  alignment.py was given `--confidence`.
* layers_alignment, layers_gap: heat maps layer by epoch of CKA on test, and of the weight gap by stage.
* quality: what quality.csv says of h on test against epochs, the reference included.
* collapse: what collapse.csv says of z on test against epochs, and how symmetric and aligned predictors are.
* matrix: CKA of h on test of every pair of arms at the last epoch, after `alignment.py --compare all`.
* gap_alignment: alignment against weight gap, a path an arm.
The reference is `cl`, or in a run without it the one of the tables. An arm has the same colour in all of them,
whichever arms are drawn (see drawing.py). A table that is damaged is said, and the status is 2.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coupled.analysis import parsers
from coupled.analysis.driver import run_program
from coupled.analysis.plots.alignment_matrix import alignment_matrix
from coupled.analysis.plots.collapse_panels import collapse_panels
from coupled.analysis.plots.drawing import arm_styles, grid, line, natural, over_epochs, plain, save
from coupled.analysis.plots.figure_rows import Run, reference_of
from coupled.analysis.run import newest_run, read_description
from coupled.analysis.tables import BadTableError, largest_sample, whole_encoder
from coupled.config.controls import twins
from coupled.monitoring.terminal import say

ALIGNMENTS = {"cka": "CKA", "rsa": "RSA"}
SHOTS = 5  # labelled images a class, of the panel of few-shot accuracy
PANELS = {  # of quality: metric and variant -> label
    ("nccc", "euclidean"): "accuracy, nearest class centre",
    ("linear_probe", "regularised"): "accuracy, linear probe",
    ("knn", "cosine"): "accuracy, 20 neighbours",
    ("few_shot", "nccc"): "accuracy, 5 images a class",
    ("cdnv", "one_class"): "CDNV",
    ("directional_cdnv", "one_class"): "directional CDNV",
    ("effective_rank", "centred"): "effective rank",
    ("augmentation_spread", "relative"): "augmentation spread",
}


def drift(run: Run) -> Figure:
    """Weight gap and alignment against epochs."""
    gaps, scores = run.gaps(), run.scores()
    gaps = whole_encoder(gaps, "mean").assign(value=lambda rows: rows["gap"])
    figure = Figure(figsize=(10.0, 3.2), layout="constrained")
    panels = [(gaps, f"weight gap to {run.reference}, mean over layers", 0.0)]
    for metric, name in ALIGNMENTS.items():
        rows = scores[(scores["metric"] == metric) & (scores["module"] == "h")]
        panels.append((rows, f"{name} with {run.reference}, test images, h", 1.0))
    for axes, (rows, label, same) in zip(figure.subplots(1, 3), panels, strict=True):
        _twin_band(run, axes, rows, same)
        for arm in run.arms(rows):
            own = rows[rows["arm"] == arm].sort_values("epoch")
            if "ci_low" in own and own["ci_low"].notna().any():
                shade = {"color": run.styles[arm].color, "alpha": 0.15, "linewidth": 0}
                axes.fill_between(own["epoch"], own["ci_low"], own["ci_high"], **shade)
            line(axes, own["epoch"], own["value"], arm, run.styles[arm])
        over_epochs(axes)
        axes.set_title(label, fontsize="medium")
    figure.axes[0].set_ylim(bottom=0)
    _legend(run, figure)
    return figure


def _twin_band(run: Run, axes: Axes, rows: pd.DataFrame, same: float) -> None:
    """From `same`, the value of equal arms, to the farthest twin."""
    twins = rows[rows["arm"].isin(run.twins)].groupby("epoch")["value"]
    if len(twins):
        far = twins.max() if same == 0 else twins.min()
        look: dict[str, Any] = {"facecolor": "0.85", "edgecolor": "0.6", "linewidth": 3, "clip_on": False, "zorder": 1}
        axes.fill_between(far.index, same, far, label=f"noise floor ({run.reference}'s twin)", **look)


def layers_alignment(run: Run) -> Figure:
    """CKA by layer and epoch, a map an arm."""
    scores = run.scores()
    return _maps(run, scores[scores["metric"] == "cka"], f"CKA with {run.reference}, test images", lowest=None)


def layers_gap(run: Run) -> Figure:
    """Weight gap by stage and epoch, a map an arm."""
    gaps = run.gaps()
    gaps = gaps[(gaps["aggregate"] == "mean") & gaps["module"].notna()]
    return _maps(run, gaps.assign(value=gaps["gap"]), f"weight gap to {run.reference}", lowest=0.0)


def _maps(run: Run, rows: pd.DataFrame, label: str, lowest: float | None) -> Figure:
    """One map an arm on one scale of colours; the first layer lies at the bottom. Raises ValueError without rows."""
    arms, layers = run.arms(rows), sorted(dict.fromkeys(rows["module"]), key=natural)
    if not arms:
        raise ValueError(f"{run.folder}: no rows of '{label}'")
    values = rows[rows["arm"].isin(arms)]["value"]
    scale = (values.min() if lowest is None else lowest, max(1.0, values.max()) if lowest is None else values.max())
    figure = Figure(figsize=(1.4 + 2.9 * len(arms), max(2.6, 1.2 + 0.3 * len(layers))), layout="constrained")
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for axes, arm in zip(panels, arms, strict=True):
        table = rows[rows["arm"] == arm].pivot(index="module", columns="epoch", values="value").reindex(layers)
        image = axes.imshow(table, aspect="auto", origin="lower", cmap="cividis", vmin=scale[0], vmax=scale[1])
        ticks = np.unique(np.linspace(0, table.shape[1] - 1, min(6, table.shape[1])).astype(int))
        axes.set_xticks(ticks, [str(table.columns[i]) for i in ticks])
        axes.set_yticks(range(len(layers)), layers)
        axes.set_title(arm, fontsize="medium")
        axes.set_xlabel("epoch")
    figure.colorbar(image, ax=list(panels), label=label, fraction=0.05)
    return figure


def quality(run: Run) -> Figure:
    """Each arm by itself against epochs."""
    rows = run.read("quality.csv", "value")
    rows = rows[(rows["split"] == "test") & (rows["module"] == "h") & (rows["shots"].isna() | (rows["shots"] == SHOTS))]
    rows = largest_sample(rows)
    there = {key: part for key, part in rows.groupby(["metric", "variant"]) if key in PANELS}
    wanted = [key for key in PANELS if key in there]
    if not wanted:
        raise ValueError(f"{run.folder / 'quality.csv'}: no rows of h on test to draw")
    figure, panels = grid(len(wanted))
    for axes, key in zip(panels, wanted, strict=True):
        for arm in run.arms(there[key]):
            own = there[key][there[key]["arm"] == arm].sort_values("epoch")
            line(axes, own["epoch"], own["value"], arm, run.styles[arm])
        over_epochs(axes)
        axes.set_title(PANELS[key], fontsize="medium")
    _legend(run, figure)
    return figure


def collapse(run: Run) -> Figure:
    """Spread and its like against epochs."""
    rows = run.read("collapse.csv", "value")
    figure = collapse_panels(rows, run.arms(rows), run.styles)
    _legend(run, figure)
    return figure


def gap_alignment(run: Run) -> Figure:
    """Alignment against weight gap."""
    gaps, scores = run.gaps(), run.scores()
    gaps = whole_encoder(gaps, "mean")[["epoch", "arm", "gap"]]
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    for axes, (metric, name) in zip(figure.subplots(1, 2), ALIGNMENTS.items(), strict=True):
        rows = scores[(scores["metric"] == metric) & (scores["module"] == "h")].merge(gaps, on=["epoch", "arm"])
        rows = rows[~rows["arm"].isin(run.twins)]
        for arm in run.arms(rows):
            own = rows[rows["arm"] == arm].sort_values("epoch")
            line(axes, own["gap"], own["value"], arm, run.styles[arm])
        last = rows[rows["epoch"] == rows["epoch"].max()]
        ring = {"marker": "o", "s": 110, "facecolor": "none", "edgecolor": "0.4", "linewidth": 1}
        axes.scatter(last["gap"], last["value"], label=f"epoch {rows['epoch'].max()}", clip_on=False, **ring)
        plain(axes)
        axes.set_title(f"{name} with {run.reference}, test images, h", fontsize="medium")
        axes.set_xlabel(f"weight gap to {run.reference}, mean over layers")
    _legend(run, figure)
    return figure


def matrix(run: Run) -> Figure:
    """CKA of every pair at the last epoch."""
    return alignment_matrix(run.read("test_alignment.csv", "value"), list(run.styles))


FIGURES: dict[str, Callable[[Run], Figure]] = {
    figure.__name__: figure
    for figure in (drift, matrix, layers_alignment, layers_gap, quality, collapse, gap_alignment)
}


def _legend(run: Run, figure: Figure) -> None:
    """One for all panels, above them."""
    found = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    found = dict(sorted(found.items(), key=lambda item: item[0] not in run.styles))  # arms first
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=6, frameon=False, handlelength=3.5)


def figures(options: Namespace) -> int:
    """Write every figure whose tables are there; the status is 2 if there is none."""
    folder = options.run or newest_run(Path("runs"))
    arms = read_description(folder)["settings"]["arms"]
    reference = options.reference or reference_of(folder / "analysis", list(arms))
    if reference not in arms:
        raise ValueError(f"--reference: the run has no arm '{reference}' (arms: {', '.join(arms)})")
    run = Run(folder / "analysis", reference, arm_styles(list(arms)), twins(arms, reference))
    written, damaged = [], False
    for name, draw in FIGURES.items():
        try:
            figure = draw(run)
        except ValueError as error:
            say(f"{name}: not drawn: {error}", file=sys.stderr)
            damaged |= isinstance(error, BadTableError)
            continue
        written += save(figure, run.folder / "figures" / name)
    for path in written:
        say(path)
    return 0 if written and not damaged else 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(figures, parsers.figures(), arguments)
