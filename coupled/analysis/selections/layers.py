"""Maps of layers over epochs, one per arm, with one range of colours; of several seeds their means."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from coupled.analysis.selections.looks import Source, of_arms, to_the
from coupled.analysis.selections.panels import n_of_rows, numbers
from coupled.analysis.selections.words import limits, words
from coupled.analysis.tables import largest_sample

STEM, TOP = ("stem", "patch_embed", "conv_stem", "conv1", "bn1"), ("norm", "head", "projector", "h", "z")  # of timm
QUANTILE = 0.98  # colours end here if the largest value is far beyond
CUT = f"colours end at the {100 * QUANTILE:.0f} % quantile"
MEASURES = {"gap": "weight gap to {}", "angle": "angle of weights to {}, degrees", "update_cosine": "cosine of updates"}
KINDS = ("conv", "linear", "norm_scale")  # of the tensors of a layer
MOST_LAYERS = 24  # rows of a map that are readable in a figure and on a telephone; of more there are maps of stages
FAR = 3.0  # times the distance of this quantile from the lowest value


@dataclass
class Maps:
    """Values by layer and epoch of each arm. Colours range from `low` to `high`; `cut` if values lie beyond."""

    title: str  # of the colours: what the values are, with reference and split
    rows: str  # what a row is: layer or stage
    n: str  # numbers of images and seeds
    layers: list[str]
    epochs: list[int]
    cells: dict[str, list[list[float]]] = field(default_factory=dict)  # by arm, then by layer
    deviations: dict[str, list[list[float]]] = field(default_factory=dict)  # over seeds; empty for one
    low: float = 0.0
    high: float = 1.0
    cut: bool = False
    possible: tuple[float, float] = (-np.inf, np.inf)  # lowest and highest possible value

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of an axis on which all cells are: 3 % beyond the extreme ones, but not beyond what is possible."""
        values = np.array([cell for arm in self.cells.values() for row in arm for cell in row])
        values = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
        low, high = float(values.min()), float(values.max())
        margin = 0.03 * (high - low) or 0.05
        return max(low - margin, self.possible[0]), min(high + margin, self.possible[1])


def of_weights(source: Source, table: pd.DataFrame, measure: str) -> list[Maps]:
    """The maps of a measure of weight_gap.csv, the most readable one first: of stages, if there are many layers.

    Args:
        source: the run.
        table: rows of weight_gap.csv with one reference.
        measure: a key of MEASURES.
    """
    title, known = MEASURES[measure].format(to_the([table])), table[table[measure].notna()]
    stages = known[(known["aggregate"] == "mean") & known["module"].notna()]
    layers = known[known["kind"].isin(KINDS)] if "kind" in known else known[:0]
    many = layers["module"].nunique() > MOST_LAYERS and len(stages) > 0
    parts = [(stages, "stage"), (layers, "layer")] if many or layers.empty else [(layers, "layer")]
    return [over_epochs(source, rows, measure, title, row) for rows, row in parts if len(rows)]


def of_scores(source: Source, table: pd.DataFrame, split: str) -> Maps:
    """The maps of one metric with one reference, of the largest sample of each layer."""
    rows = pd.concat([largest_sample(each) for _, each in table.groupby("module", sort=False)])
    title = f"{words(str(table['metric'].iloc[0]))} with {to_the([table])}, {split} images"
    maps = over_epochs(source, rows, "value", title, "layer", split)
    maps.possible = limits(str(table["metric"].iloc[0]), "pair")
    return maps


def over_epochs(source: Source, rows: pd.DataFrame, column: str, title: str, row: str, split: str = "") -> Maps:
    """The map of each arm: layers in the order of the network, epochs ascending; NaN for a missing cell.

    Only colours of a weight gap end before extreme values; scores have a limited range.
    """
    arms = of_arms(source, rows)
    layers = sorted((str(each) for each in rows["module"].unique()), key=layer_sort_key)
    n = n_of_rows(rows, split, source.seeds)
    found = Maps(title, row, n, layers, sorted(int(epoch) for epoch in rows["epoch"].unique()))
    for arm, own in arms:
        for name, values in ((column, found.cells), (f"{column}_sd", found.deviations)):
            if name in own:
                cells = own.pivot(index="module", columns="epoch", values=name)
                cells = cells.reindex(index=layers, columns=found.epochs)
                values[arm] = [numbers(each) for each in cells.to_numpy()]
    found.low, found.high, found.cut = colour_range(list(found.cells.values()), column == "gap")
    return found


def largest_deviation(maps: Maps) -> str:
    """The largest standard deviation of a cell over seeds in words; "" for one seed."""
    values = np.array([cell for arm in maps.deviations.values() for row in arm for cell in row])
    return f"standard deviation of a cell at most {np.nanmax(values):.2g}" if np.isfinite(values).any() else ""


def colour_range(cells: Any, may_cut: bool) -> tuple[float, float, bool]:
    """The range of the colours, and whether values lie above it.

    A few extreme values would leave one colour for all others: if the largest value is more than three times as far
    from the lowest one as the 98 % quantile, the colours end at this quantile.
    """
    values = np.asarray(cells, dtype=float).ravel()
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0, False
    low, high, most = float(values.min()), float(values.max()), float(np.quantile(values, QUANTILE))
    return (low, most, True) if may_cut and most > low and high - low > FAR * (most - low) else (low, high, False)


def layer_sort_key(name: str) -> tuple[Any, ...]:
    """A sort key for names of layers: stem first; projector, h and z last; layers.2 before layers.10; a ResNet's bn1
    directly after its conv1.
    """
    parts = re.split(r"(\d+)", name.replace(".bn", ".conv"))
    first = name.removeprefix("encoder.").partition(".")[0]
    stem = STEM.index(first) if first in STEM else len(STEM)
    top = TOP.index(first) if first in TOP else -1
    return stem, top, [part.rjust(8, "0") if part.isdigit() else part for part in parts], ".bn" in name
