"""The figures of single arms over epochs: quality of the representation, and collapse."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import grid, line, over_epochs
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.tables import largest_sample

SHOTS = 5  # labelled images per class in the panel of few-shot accuracy
QUALITY = {  # metric, variant -> title of the panel
    ("nccc", "euclidean"): "accuracy, nearest class centre",
    ("linear_probe", "regularised"): "accuracy, linear probe",
    ("knn", "cosine"): "accuracy, k-NN (k = 20)",
    ("few_shot", "nccc"): f"accuracy, {SHOTS} images per class",
    ("cdnv", "one_class"): "CDNV",
    ("directional_cdnv", "one_class"): "directional CDNV",
    ("effective_rank", "centred"): "effective rank",
    ("augmentation_spread", "relative"): "augmentation spread",
}
COLLAPSE = {  # module, metric -> title of the panel; a metric with a value per direction is averaged
    ("z", "spread"): "spread of z",
    ("z", "effective_rank"): "effective rank of z",
    ("z", "alignment"): "distance of two views, z",
    ("z", "uniformity"): "uniformity of z",
    ("h", "effective_rank"): "effective rank of h",
    ("predictor", "asymmetry"): "asymmetry of the predictor",
    ("predictor", "eigenspace_alignment"): "eigenspace alignment of predictor",
}


def quality(tables: FigureTables) -> Figure:
    """Return the figure of the metrics of quality.csv for h on test."""
    rows = tables.read("quality.csv", "value")
    rows = rows[(rows["split"] == "test") & (rows["module"] == "h") & (rows["shots"].isna() | (rows["shots"] == SHOTS))]
    panels = _panels(largest_sample(rows), ("metric", "variant"), QUALITY)
    if not panels:
        raise ValueError(f"{tables.folder / 'quality.csv'}: no rows of h on test to draw")
    return _over_epochs(panels, tables)


def collapse(tables: FigureTables) -> Figure:
    """Return the figure of the metrics of collapse.csv on test, one value per epoch."""
    rows = tables.read("collapse.csv", "value")
    panels = _panels(largest_sample(rows[rows["split"] == "test"]), ("module", "metric"), COLLAPSE)
    if not panels:
        raise ValueError(f"{tables.folder / 'collapse.csv'}: no rows of test to draw")
    means = {title: rows.groupby(["arm", "epoch"])["value"].mean().reset_index() for title, rows in panels.items()}
    return _over_epochs(means, tables)


def _panels(rows: pd.DataFrame, columns: tuple[str, ...], titles: Mapping[Any, str]) -> dict[str, pd.DataFrame]:
    """Return the rows by title of their panel, in the order of `titles`, without empty panels."""
    groups = dict(iter(rows.groupby(list(columns))))
    return {title: groups[key] for key, title in titles.items() if key in groups}


def _over_epochs(panels: Mapping[str, pd.DataFrame], tables: FigureTables) -> Figure:
    """Return a figure with one panel per title and one line per arm."""
    figure, grid_axes = grid(len(panels))
    for axes, (title, rows) in zip(grid_axes, panels.items(), strict=True):
        for arm in tables.arms(rows):
            curve = rows[rows["arm"] == arm].sort_values("epoch")
            line(axes, curve["epoch"], curve["value"], arm, tables.styles[arm])
        over_epochs(axes)
        axes.set_title(title, fontsize="medium")
    add_legend(figure, tables)
    return figure
