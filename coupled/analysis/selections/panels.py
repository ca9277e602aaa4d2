"""What a chart shows, without how it is drawn: panels with axes and series of numbers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from coupled.analysis.selections.styles import DASHES, MARKERS, Style

Kind = Literal["line", "curve", "points"]  # with markers, without markers, markers alone


SPREAD = 0.8  # epochs: over which the series of a single epoch are spread
APART = 0.16  # epochs: at most, between two of them
FEW = 8  # values of a logarithmic x axis that are its ticks
MARGIN = 1.4  # factor between the outer of these ticks and the ends of the axis


@dataclass(frozen=True)
class Axis:
    """An axis: its title in words, its scale, and the values that it never goes beyond."""

    title: str
    log: bool = False
    low: float = -np.inf
    high: float = np.inf
    whole: bool = False  # ticks are whole numbers
    zero: bool = False  # starts at 0


EPOCHS = Axis("epoch", whole=True)


@dataclass(frozen=True)
class Series:
    """One line of a panel. NaN is a gap. `arm` is empty for a line that belongs to no arm."""

    label: str
    arm: str
    style: Style
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None  # of an interval around y
    high: Sequence[float] | None = None
    seeds: int = 1  # over which y is the mean; the interval is then one standard deviation
    kind: Kind = "line"
    texts: Sequence[str] = ()  # of the points

    @property
    def has_band(self) -> bool:
        """Whether the interval is an area: that of a mean over seeds, of more than one point. Others are bars."""
        return self.low is not None and self.seeds > 1 and len(self.x) > 1


class Floor(NamedTuple):
    """The noise floor: a band from the value of equal arms to that of the most distant twin."""

    label: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class Ring(NamedTuple):
    """Points to mark, such as those of the last epoch."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    arms: Sequence[str] = ()  # of the points


@dataclass
class Panel:
    """One panel: what it shows as a tuple of names, its name among the variants of a chart, axes and series."""

    key: tuple[str, ...]
    name: str
    x: Axis
    y: Axis
    short: str = ""  # title beside panels of the same layer and split
    series: list[Series] = field(default_factory=list)
    floor: Floor | None = None
    counts: dict[str, None] = field(default_factory=dict)  # "357 test images", in order
    ring: Ring | None = None
    bars: str = ""  # what the intervals of one seed are

    def places(self) -> list[float]:
        """The distinct x values of the series, ascending."""
        return sorted({x for series in self.series for x in series.x})

    def ticks(self) -> list[float]:
        """The ticks of a logarithmic x axis with few values: the values; otherwise none."""
        places = self.places() if self.x.log else []
        return places if len(places) <= FEW else []

    @property
    def only_epoch(self) -> float | None:
        """The epoch of a panel over epochs that has a single one; None for other panels."""
        places = self.places() if self.x.whole else []
        return places[0] if len(places) == 1 else None

    def ends(self) -> tuple[float, float] | None:
        """The lowest and the highest drawn value, with intervals and the noise floor; None without values."""
        drawn = as_drawn(self)
        parts = [part for each in drawn.series for part in (each.y, each.low, each.high) if part is not None]
        parts += [drawn.floor.low, drawn.floor.high] if drawn.floor else []
        values = np.array([value for part in parts for value in part], dtype=float)
        values = values[np.isfinite(values) & ((values > 0) | (not self.y.log))]
        return (float(values.min()), float(values.max())) if len(values) else None

    def decades(self) -> tuple[float, float] | None:
        """The limits of a logarithmic y axis whose values span less than two powers of ten: the nearest two are shown.

        None for other axes, and for a single epoch, whose points use the height of the panel.
        """
        ends = self.ends() if self.y.log and self.only_epoch is None else None
        if ends is None or spans_decades(*ends):
            return None
        low, high = map(math.log10, ends)
        powers = sorted(range(math.floor(low) - 1, math.ceil(high) + 2), key=lambda n: max(low - n, n - high, 0))[:2]
        low, high = min(low, *powers), max(high, *powers)
        margin = 0.05 * (high - low)
        return 10 ** (low - margin), 10 ** (high + margin)

    def shifts(self) -> list[float]:
        """How far right of its epoch each series is drawn: those of a single epoch side by side, others at 0."""
        count = len(self.series)
        step = 0.0 if self.only_epoch is None else min(APART, SPREAD / count)
        return [step * (place - (count - 1) / 2) for place in range(count)]

    def count(self, rows: pd.DataFrame, split: str = "") -> None:
        """Note the numbers of images of the rows."""
        for number in rows["num_images"].dropna().unique() if "num_images" in rows else ():
            self.counts[f"{number:,.0f} {split} images".replace(",", " ").replace("  ", " ")] = None


def spans_decades(low: float, high: float) -> bool:
    """Whether two powers of ten lie between positive numbers."""
    return math.ceil(math.log10(low)) < math.floor(math.log10(high))


class Panels(dict[tuple[str, ...], Panel]):
    """The panels of a chart by key, in the order in which they were asked for first."""

    def panel(self, key: Iterable[str], name: str, y: Axis, x: Axis = EPOCHS, short: str = "") -> Panel:
        """The panel with this key; a new one if there is none."""
        whole = tuple(key)
        return self.setdefault(whole, Panel(whole, name, x, y, short or y.title))

    def filled(self) -> list[Panel]:
        """The panels that have series."""
        return [panel for panel in self.values() if panel.series]


def as_drawn(panel: Panel) -> Panel:
    """The panel in a form that is visible: a single point is no line, and a single epoch has no band.

    Curves at a single place become points, whose marker follows their dash; the noise floor of a single epoch becomes
    half an epoch wide on both sides. On a logarithmic axis an interval that reaches 0 is left out: it would cover the
    panel down to its lower end. The band of a mean ends at the possible values of the axis.
    """
    prepare = _positive if panel.y.log else partial(_possible, panel.y)
    panel = replace(panel, series=[prepare(each) for each in panel.series])
    if len(panel.places()) != 1:
        return panel
    markers = list(MARKERS)
    of_dash = {dash: markers[-1 - place] for place, dash in enumerate(DASHES)}
    series = [
        each
        if each.kind != "curve"
        else replace(each, kind="points", style=each.style._replace(marker=of_dash[each.style.linestyle]))
        for each in panel.series
    ]
    if (epoch := panel.only_epoch) is None:
        return replace(panel, series=series)
    wide = panel.floor and panel.floor._replace(
        x=[epoch - 0.5, epoch + 0.5], low=[min(panel.floor.low)] * 2, high=[max(panel.floor.high)] * 2
    )
    return replace(panel, series=series, floor=wide)


def _positive(series: Series) -> Series:
    """The series without the parts of its interval that reach 0."""
    if series.low is None or series.high is None:
        return series
    low, high = (np.where(np.array(series.low) > 0, end, np.nan).tolist() for end in (series.low, series.high))
    return replace(series, low=low, high=high)


def _possible(axis: Axis, series: Series) -> Series:
    """The series with its band cut at the ends of the axis."""
    if not series.has_band or series.low is None or series.high is None:
        return series
    low, high = (np.clip(end, axis.low, axis.high).tolist() for end in (series.low, series.high))
    return replace(series, low=low, high=high)


def _reaches_zero(panel: Panel) -> bool:
    """Whether a part of an interval is left out because the axis is logarithmic."""
    return panel.y.log and any(low <= 0 for each in panel.series for low in each.low or ())


def numbers(values: Any) -> list[float]:
    """Floats, NaN for what is not finite."""
    cells = np.asarray(pd.Series(list(values), dtype=object).astype(float))
    return [float(each) if np.isfinite(each) else float("nan") for each in cells]


def n_of(panels: Iterable[Panel]) -> str:
    """The numbers of images and seeds of panels in one line: "n = 357 test images; one seed"."""
    every = list(panels)
    counts = dict.fromkeys(count for panel in every for count in panel.counts)
    seeds = {series.seeds for panel in every for series in panel.series if series.arm}
    bands = any(series.low is not None for panel in every for series in panel.series)
    bars = [f"bars: {each}" for each in dict.fromkeys(panel.bars for panel in every) if each]
    cut = ["intervals that reach 0 are not drawn"] if any(map(_reaches_zero, every)) else []
    return "; ".join(filter(None, (_in_words(list(counts), sorted(seeds), bands), *bars, *cut)))


def n_of_rows(rows: pd.DataFrame, split: str, seeds: int, bands: bool = False) -> str:
    """The numbers of images and seeds of the rows of a table in one line; `bands` are standard deviations."""
    panel = Panel((), "", EPOCHS, EPOCHS)
    panel.count(rows, split)
    return _in_words(list(panel.counts), [seeds], bands)


def _these(numbers: Sequence[str]) -> str:
    """One or two numbers, or the range of more of them."""
    if len(numbers) <= 2:
        return " or ".join(numbers)
    ordered = sorted(numbers, key=lambda number: int(number.replace(" ", "")))
    return f"{ordered[0]} to {ordered[-1]}"


def _in_words(counts: Sequence[str], seeds: Sequence[int], bands: bool) -> str:
    by_unit: dict[str, list[str]] = {}
    for count in counts:
        unit = count.lstrip("0123456789 ")
        by_unit.setdefault(unit, []).append(count.removesuffix(unit).strip())
    named = ", ".join(f"{_these(numbers)} {unit}" for unit, numbers in by_unit.items())
    images = [f"n = {named}"] if counts else []
    if not any(count > 1 for count in seeds):
        return "; ".join([*images, *(["one seed"] if seeds else [])])
    shown = "mean and one standard deviation" if bands else "mean"
    return "; ".join([*images, f"{shown} over n = {' or '.join(map(str, seeds))} seeds"])
