"""The figure of collapse: one panel a measure, one line an arm, over epochs."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import Style, grid, line, over_epochs
from coupled.analysis.tables import largest_sample

PANELS = {  # module, metric -> label; directions and their like are averaged
    ("z", "spread"): "spread of z",
    ("z", "effective_rank"): "effective rank of z",
    ("z", "alignment"): "distance of two views, z",
    ("z", "uniformity"): "uniformity of z",
    ("h", "effective_rank"): "effective rank of h",
    ("predictor", "asymmetry"): "asymmetry of the predictor",
    ("predictor", "eigenspace_alignment"): "alignment of predictor and F",
}


def collapse_panels(rows: pd.DataFrame, arms: Sequence[str], styles: Mapping[str, Style]) -> Figure:
    """The panels that `rows` of collapse.csv have, of test and the largest sample. Raises ValueError for none."""
    rows = rows[rows["split"] == "test"]
    rows = largest_sample(rows)
    there = {key: part for key, part in rows.groupby(["module", "metric"]) if key in PANELS}
    wanted = [key for key in PANELS if key in there]
    if not wanted:
        raise ValueError("collapse.csv: no rows of test to draw")
    figure, panels = grid(len(wanted))
    for axes, key in zip(panels, wanted, strict=True):
        for arm in arms:
            own = there[key][there[key]["arm"] == arm].groupby("epoch", as_index=False)["value"].mean()
            if len(own):
                line(axes, own["epoch"], own["value"], arm, styles[arm])
        over_epochs(axes)
        axes.set_title(PANELS[key], fontsize="medium")
    return figure
