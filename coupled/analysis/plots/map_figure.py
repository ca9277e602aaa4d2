"""The figure of map.csv: a panel for each arm, a row of panels for each epoch, a colour for each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from coupled.stream.seeds import permutation, philox

MOST_NAMED = 20  # classes in the legend; with more classes a colour bar shows their indices
LONGEST_NAME = 26  # characters of a class's name in the legend
PANEL, LINE, CHARACTER = 2.6, 0.2, 0.085  # inches: side of a panel, height of a line of the legend, width of a letter
CROWDED = 500  # a panel with more points has smaller ones
NAMES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}
NO_LABEL: dict[str, Any] = {"marker": "x", "color": "0.45"}
Colour = tuple[float, float, float, float]


def draw(rows: pd.DataFrame) -> Figure:
    """The figure of the rows of map.csv, all of one method and layer."""
    epochs, arms = (list(dict.fromkeys(rows[column])) for column in ("epoch", "arm"))
    classes = sorted(set(rows["label"].dropna()), key=_numbers_first)
    colours = class_colours(classes)
    named = classes if len(classes) <= MOST_NAMED else []
    unknown = bool(classes) and bool(rows["label"].isna().any())
    lines = len(named) + unknown
    beside = 0.6 + CHARACTER * max([8, *(len(_short(name)) for name in named)]) if lines else 0.0
    wide = PANEL * len(arms) + 0.3 + (0.9 if len(classes) > MOST_NAMED else 0)
    high = max(PANEL * len(epochs) + 0.6, LINE * (lines + 1))
    figure = Figure(figsize=(wide + beside, high), layout="constrained")
    maps: Any = figure
    if lines:  # a separate subfigure, so that the title does not overlap the legend
        maps, legend = figure.subfigures(1, 2, width_ratios=[wide, beside], squeeze=False)[0]
        _draw_legend(legend, [(name, colours[name]) for name in named], unknown)
    cells = maps.subplots(len(epochs), len(arms), squeeze=False)
    for (row, column), axes in np.ndenumerate(cells):
        _draw_panel(axes, rows[(rows["epoch"] == epochs[row]) & (rows["arm"] == arms[column])], colours)
        if row == 0:
            axes.set_title(arms[column], fontsize="medium")
        if column == 0:
            axes.set_ylabel(f"epoch {epochs[row]}")
    first, between = rows.iloc[0], "\n" if len(arms) == 1 else ", "
    images = f"{first['num_images']} images of {_short(Path(first['dataset']).name)}"
    maps.suptitle(f"{NAMES[first['method']]} of {first['layer']}{between}{images}", fontsize="medium")
    if len(classes) > MOST_NAMED:
        scale = ScalarMappable(Normalize(0, len(classes) - 1), "turbo")
        maps.colorbar(scale, ax=cells, label="class index (sorted by name)", fraction=0.05)
    return figure


def class_colours(classes: Sequence[str]) -> dict[str, Colour]:
    """A colour for each class: distinct colours for up to 20 classes, a continuous scale for more."""
    if len(classes) > MOST_NAMED:
        scale = matplotlib.colormaps["turbo"]
        return {name: scale(k / (len(classes) - 1)) for k, name in enumerate(classes)}
    colours = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"]
    return {name: colours(k) for k, name in enumerate(classes)}


def _draw_panel(axes: Axes, points: pd.DataFrame, colours: dict[str, Colour]) -> None:
    points = points.iloc[permutation(len(points), philox(0, "figures/map"))]  # so that no class hides the others
    style: dict[str, Any] = {"s": 4 if len(points) > CROWDED else 12, "rasterized": True}
    known, unknown = points[points["label"].notna()], points[points["label"].isna()]
    crosses = NO_LABEL if colours else {"color": NO_LABEL["color"]}
    axes.scatter(unknown["x"], unknown["y"], linewidths=0.6, **crosses, **style)
    axes.scatter(known["x"], known["y"], c=[colours[label] for label in known["label"]], linewidths=0, **style)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("0.8")


def _draw_legend(figure: SubFigure, named: Sequence[tuple[str, Colour]], unknown: bool) -> None:
    marks = [Line2D([], [], linestyle="", marker="o", markersize=6, color=colour) for _, colour in named]
    names = [_short(name) for name, _ in named]
    if unknown:
        marks.append(Line2D([], [], linestyle="", markersize=5, **NO_LABEL))
        names.append("no label")
    figure.legend(marks, names, loc="upper left", frameon=False, handletextpad=0.2, fontsize="medium")


def _numbers_first(name: str) -> tuple[bool, int, str]:
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def _short(name: str) -> str:
    """The name; a long one is cut in the middle, because names may differ only at the end."""
    half = (LONGEST_NAME - 3) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3 - half]}...{name[-half:]}"
