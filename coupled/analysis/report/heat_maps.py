"""The report's heat maps: layers over epochs, and layers of one network against layers of another, with a slider.

A figure with a `slider` (its epochs) has traces whose `meta` holds the data of each epoch: `profile`, the x values of a
line, or `frames`, the z values of a heat map. Heat maps over epochs have a vertical line at the slider's epoch.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from coupled.analysis.report.charts import Chart, Figure, Trace, numbers, trace
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.selections import layers as select
from coupled.analysis.selections.layers import Maps, layer_sort_key
from coupled.analysis.selections.looks import Looks
from coupled.analysis.selections.words import words
from coupled.analysis.tables import largest_sample

SPLITS = ("test", "train")
SCALE: dict[str, Any] = {"colorscale": "Viridis", "colorbar": {"thickness": 10, "len": 1, "y": 0.5}}
ROW, LEAST, FRAME = 14, 340, 120  # pixels: of a layer, of the smallest map, of titles and legend
LETTERS = 20  # of a line of a title
OVER_EPOCHS = (
    "One row per layer or stage, in the order of the network. The vertical line marks the epoch of the slider; the last"
    " panel shows the values at this epoch."
)
GAP = 0.02  # between panels, as a share of the width


def weights_by_layer(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """Weight gap, angle and cosine of updates: layers over epochs, arms side by side."""
    variants: dict[str, Figure] = {}
    for run in runs:
        table = run.table("weight_gap.csv")
        for reference, group in table.groupby("reference", sort=False) if len(table) else ():
            for measure in select.MEASURES:
                for maps in select.of_weights(run, group, measure):
                    title = f"{measure.replace('_', ' ')} by {maps.rows}"
                    variants[_name(looks, run, title, f"to {reference}")] = over_epochs(
                        run, looks, maps, str(reference)
                    )
    return Chart("layers", "Weight gap, angle and update cosine by layer", OVER_EPOCHS, variants)


def alignment_by_layer(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """Every pair metric: layers over epochs, arms side by side."""
    variants: dict[str, Figure] = {}
    for name, run, split, reference, group in _scores(runs, looks, "alignment"):
        variants[name] = over_epochs(run, looks, select.of_scores(run, group, split), reference)
    return Chart("alignment_layers", "Alignment by layer", OVER_EPOCHS, variants)


def cross_layer(runs: Sequence[ReportRun], looks: Looks) -> Chart:
    """Every layer of the reference against every layer of an arm, at the slider's epoch."""
    scores = _scores(runs, looks, "cross_layer")
    variants = {
        name: _against_layers(largest_sample(group), split, reference) for name, _, split, reference, group in scores
    }
    caption = (
        "Rows: layers of the reference arm. Columns: layers of the compared arm. The slider selects the epoch. All"
        " panels and epochs share one colour scale."
    )
    return Chart("cross_layer", "Cross-layer alignment", caption, variants)


def _scores(
    runs: Sequence[ReportRun], looks: Looks, table: str
) -> Iterator[tuple[str, ReportRun, str, str, pd.DataFrame]]:
    """Yield name of the variant, run, split, reference and rows of each figure of <split>_<table>.csv."""
    for run in runs:
        for split in SPLITS:
            rows = run.table(f"{split}_{table}.csv")
            for (metric, reference), group in rows.groupby(["metric", "reference"], sort=False) if len(rows) else ():
                name = _name(looks, run, str(metric), f"to {reference}", f"{split} images")
                yield name, run, split, str(reference), group


def _name(looks: Looks, run: ReportRun, *parts: str) -> str:
    """The name of a variant; it ends with the run's name if there are several runs."""
    return ", ".join([*parts, *([run.name] if len(looks.sources) > 1 else [])])


def over_epochs(run: ReportRun, looks: Looks, maps: Maps, reference: str) -> Figure:
    """One heat map per arm, layers over epochs; at the right the profile over layers at the slider's epoch."""
    arms = list(maps.cells)
    heats, axes = _panels(arms, "epoch", width := 1 / (len(arms) + 1.6))
    last = str(len(arms) + 1)
    profiles: list[Trace] = []
    for arm, heat in zip(arms, heats, strict=True):
        z = [numbers(row) for row in maps.cells[arm]]
        heat.update({"x": maps.epochs, "y": maps.layers, "z": z})
        if arm in maps.deviations:  # beside the value, where a reader points
            heat["text"] = [[f"± {cell:.2g}" if cell == cell else "" for cell in row] for row in maps.deviations[arm]]
        line = trace(looks.series(run, arm, [row[-1] for row in maps.cells[arm]], [], reference=reference))
        by_epoch = [list(each) for each in zip(*z, strict=True)]
        profiles.append({**line, "xaxis": f"x{last}", "y": maps.layers, "meta": {"arm": arm, "profile": by_epoch}})
    for axis in axes.values():
        axis["tickformat"] = "d"
    axes[f"xaxis{last}"] = {"domain": [len(arms) * width + 0.03, 1], "title": _title(_wrapped(maps.title))}
    axes[f"xaxis{last}"]["range"] = numbers(maps.ends)  # the same for every epoch of the slider
    low, high = numbers([maps.low, maps.high])
    text = _wrapped(maps.title, select.CUT if maps.cut else "")
    colours = {**SCALE, "cmin": low, "cmax": high, "colorbar": {**SCALE["colorbar"], "title": {"text": text}}}
    return _figure([*heats, *profiles], axes, maps.layers, maps.epochs, colours, maps.rows)


def _title(text: str) -> dict[str, Any]:
    """The title of an axis beside its tick labels; without a distance plotly may print it over them."""
    return {"text": text, "standoff": 4}


def _wrapped(*texts: str) -> str:
    """Texts in short lines, for a title beside or below a map."""
    return "<br>".join(line for text in texts for line in textwrap.wrap(text, LETTERS))


def _against_layers(table: pd.DataFrame, split: str, reference: str) -> Figure:
    """One heat map per arm, layers of the reference by layers of the arm, at the slider's epoch."""
    rows, columns = (sorted(table[name].unique(), key=layer_sort_key) for name in ("reference_module", "module"))
    epochs = sorted(int(epoch) for epoch in table["epoch"].unique())
    arms = list(dict.fromkeys(table["arm"]))
    traces, axes = _panels(arms, "layer", 1 / len(arms))
    for arm, heat in zip(arms, traces, strict=True):
        of_arm = table[table["arm"] == arm]
        frames = []
        for epoch in epochs:
            cells = of_arm[of_arm["epoch"] == epoch].pivot(index="reference_module", columns="module", values="value")
            frames.append([numbers(row) for row in cells.reindex(index=rows, columns=columns).to_numpy()])
        heat.update({"x": columns, "y": rows, "z": frames[-1], "meta": {"arm": arm, "frames": frames}})
    for axis in axes.values():
        axis["type"] = "category"
    low, high = numbers([table["value"].min(), table["value"].max()])
    text = _wrapped(f"{words(str(table['metric'].iloc[0]))}, {split} images")
    scale = {**SCALE, "cmin": low, "cmax": high, "colorbar": {**SCALE["colorbar"], "title": {"text": text}}}
    return _figure(traces, axes, rows, epochs, scale, f"layer of {reference}")


def _panels(arms: Sequence[str], x: str, width: float) -> tuple[list[Trace], dict[str, Any]]:
    """Empty heat maps, one per arm, and their axes from left to right."""
    traces, axes = [], {}
    for index, arm in enumerate(arms):
        axis = str(index + 1) if index else ""
        traces.append(
            {"type": "heatmap", "coloraxis": "coloraxis", "name": arm, "xaxis": f"x{axis}", "meta": {"arm": arm}}
        )
        axes[f"xaxis{axis}"] = {"domain": [index * width, (index + 1) * width - GAP], "title": _title(f"{arm}, {x}")}
    return traces, axes


def _figure(
    traces: Sequence[Trace],
    axes: Mapping[str, Any],
    layers: Sequence[str],
    epochs: Sequence[int],
    scale: Mapping[str, Any],
    y: str,
) -> Figure:
    """A figure whose panels share the axis of layers, from the top, with the title `y`."""
    axis: dict[str, Any] = {
        "autorange": "reversed",
        "type": "category",
        "automargin": True,
        "title": _title(y),
        "dtick": 1,
        "tickfont": {"size": 9},
    }
    size = {"height": max(LEAST, ROW * len(layers) + FRAME), "coloraxis": dict(scale), "yaxis": axis}
    return {"data": list(traces), "layout": {**axes, **size}, "slider": list(epochs)}
