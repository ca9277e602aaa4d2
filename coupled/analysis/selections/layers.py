"""Maps of layers over epochs, one per arm, with one range of colours."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from coupled.analysis.selections.looks import Source, of_arms
from coupled.analysis.selections.panels import numbers

STEM, TOP = ("stem", "patch_embed", "conv_stem", "conv1", "bn1"), ("norm", "head", "projector", "h", "z")  # of timm
QUANTILE = 0.98  # colours end here if the largest value is far beyond
CUT = f"colours end at the {100 * QUANTILE:.0f} % quantile"
FAR = 3.0  # times the distance of this quantile from the lowest value


@dataclass
class Maps:
    """Values by layer and epoch of each arm. Colours range from `low` to `high`; `cut` if values lie beyond."""

    title: str
    layers: list[str]
    epochs: list[int]
    cells: dict[str, list[list[float]]] = field(default_factory=dict)  # by arm, then by layer
    low: float = 0.0
    high: float = 1.0
    cut: bool = False


def over_epochs(source: Source, rows: pd.DataFrame, column: str, title: str) -> Maps:
    """The map of each arm: layers in the order of the network, epochs ascending; NaN for a missing cell.

    Only colours of a weight gap end before extreme values; scores have a limited range.
    """
    arms = of_arms(source, rows)
    layers = sorted((str(each) for each in rows["module"].unique()), key=layer_sort_key)
    found = Maps(title, layers, sorted(int(epoch) for epoch in rows["epoch"].unique()))
    for arm, own in arms:
        cells = own.pivot(index="module", columns="epoch", values=column).reindex(index=layers, columns=found.epochs)
        found.cells[arm] = [numbers(row) for row in cells.to_numpy()]
    found.low, found.high, found.cut = colour_range(list(found.cells.values()), column == "gap")
    return found


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
