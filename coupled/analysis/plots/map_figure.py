"""The figure of map.csv: a panel for each arm, a row of panels for each epoch, a colour for each class."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from coupled.stream.seeds import permutation, philox

MOST_NAMED = 20  # classes; of more a colour bar shows the numbers
LONGEST_NAME = 24  # characters of a class's name in the legend
PANEL = 2.6  # inches
UNKNOWN = "0.6"  # grey of images without a label
NAMES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}
CROWDED = 500  # points of a panel, above which they are small


def draw(rows: pd.DataFrame) -> Figure:
    """The figure of the rows of map.csv, all of one method and layer."""
    epochs, arms = (list(dict.fromkeys(rows[column])) for column in ("epoch", "arm"))
    classes = sorted(set(rows["label"].dropna()), key=_numbers_first)
    colours = class_colours(classes)
    figure = Figure(figsize=(PANEL * len(arms) + 1.4, PANEL * len(epochs) + 0.5), layout="constrained")
    cells = figure.subplots(len(epochs), len(arms), squeeze=False)
    for (row, column), axes in np.ndenumerate(cells):
        points = rows[(rows["epoch"] == epochs[row]) & (rows["arm"] == arms[column])]
        order = permutation(len(points), philox(0, "figures/map"))  # no class lies upon all others
        points = points.iloc[order]
        colour = [UNKNOWN if pd.isna(label) else colours[label] for label in points["label"]]
        size = 4 if len(points) > CROWDED else 12
        axes.scatter(points["x"], points["y"], c=colour, s=size, linewidths=0, rasterized=True)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("0.8")
        if row == 0:
            axes.set_title(arms[column], fontsize="medium")
        if column == 0:
            axes.set_ylabel(f"epoch {epochs[row]}")
    first = rows.iloc[0]
    images = f"{first['num_images']} images of {Path(first['dataset']).name}"
    figure.suptitle(f"{NAMES[first['method']]} of {first['layer']}, {images}", fontsize="medium")
    if len(classes) > MOST_NAMED:
        scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, len(classes) - 1), "turbo")
        figure.colorbar(scale, ax=cells, label="class, in the order of their names", fraction=0.05)
    elif classes:
        entries = {_short(name): colours[name] for name in classes}
        entries |= {"no label": to_rgba(UNKNOWN)} if rows["label"].isna().any() else {}
        marks = [Line2D([], [], linestyle="", marker="o", markersize=6, color=each) for each in entries.values()]
        figure.legend(marks, list(entries), loc="outside right upper", frameon=False, handletextpad=0.2)
    return figure


def class_colours(classes: list[str]) -> dict[str, tuple[float, float, float, float]]:
    """A colour for each class: of up to 20 colours that can be told apart, of more the places of a scale."""
    if len(classes) > MOST_NAMED:
        scale = matplotlib.colormaps["turbo"]
        return {name: scale(k / (len(classes) - 1)) for k, name in enumerate(classes)}
    listed = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"]
    return {name: listed(k) for k, name in enumerate(classes)}


def _numbers_first(name: str) -> tuple[bool, int, str]:
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
