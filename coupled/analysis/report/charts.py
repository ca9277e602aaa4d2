"""Shared parts of the report's charts: they turn tables into plotly's JSON, and neither read nor draw anything.

A chart has variants; the page shows one at a time. The `meta` of each trace names its arm, so that the page can switch
arms on and off. An arm has the same colour and symbol in all charts, and a run the same dash; arms that share a colour
differ in dash as well. Times are epochs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from coupled.analysis.plots.drawing import COLOURS, arm_colours, arm_indices
from coupled.analysis.report.tables import ReportRun
from coupled.config.controls import twins, twins_of_earlier_arms

Trace = dict[str, Any]
Figure = dict[str, Any]
DASHES = (  # of runs
    "solid",
    "dash",
    "dot",
    "dashdot",
    "longdash",
    "longdashdot",
)
NOISE = "#999999"  # the colour of twins
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")


@dataclass(frozen=True)
class Chart:
    """One chart of the page: title, caption and its variants by name. A chart without variants is left out."""

    key: str
    title: str
    caption: str
    variants: dict[str, Figure]


class TraceStyles:
    """Colours of arms and dashes of runs, the same in all charts of a page."""

    def __init__(self, runs: Sequence[ReportRun]) -> None:
        self.runs = [run.name for run in runs]
        self.arms = list(dict.fromkeys(arm for run in runs for arm in run.arms))
        self.colours, self.indices = arm_colours(self.arms), arm_indices(self.arms)
        self.twins: dict[tuple[str, str], list[str]] = {}  # by run and reference; "" without a reference
        for run in runs:
            arms = run.run.description["settings"]["arms"]
            self.twins |= {
                (run.name, ""): twins_of_earlier_arms(arms),
                **{(run.name, arm): twins(arms, arm) for arm in arms},
            }

    def is_noise(self, run: ReportRun, arm: str, reference: str = "") -> bool:
        """Whether an arm is a twin of the reference; without a reference, of an earlier arm."""
        return arm in self.twins[run.name, reference]

    def name(self, run: ReportRun, arm: str, more: str = "", reference: str = "") -> str:
        """The text in the legend."""
        floor = "noise floor" if self.is_noise(run, arm, reference) else ""
        return " · ".join(filter(None, (arm, floor, more, run.name if len(self.runs) > 1 else "")))

    def line(
        self,
        run: ReportRun,
        arm: str,
        x: Any,
        y: Any,
        more: str = "",
        dash: str = "",
        reference: str = "",
        **trace: Any,
    ) -> Trace:
        """A line over epochs. `more` labels one of several lines of an arm; a line with `dash` has no markers.

        Lines of one arm to several references, which `more` names, differ in dash and marker. So do arms of one colour.
        """
        symbol = self.indices[arm]
        index = self.runs.index(run.name) + len(self.runs) * (symbol // len(COLOURS))
        if more and reference in run.arms:
            index, symbol = index + len(self.runs) * run.arms.index(reference), symbol + run.arms.index(reference)
        colour = NOISE if self.is_noise(run, arm, reference) else self.colours[arm]
        return {
            "type": "scatter",
            "mode": "lines" if dash else "lines+markers",
            "name": self.name(run, arm, more, reference),
            "x": numbers(x),
            "y": numbers(y),
            "line": {"color": colour, "dash": dash or DASHES[index % len(DASHES)], "width": 1.4 if dash else 2},
            "marker": {"size": 5, "symbol": SYMBOLS[symbol % len(SYMBOLS)], "color": colour},
            "meta": {"arm": arm},
            **trace,
        }


def numbers(values: Any) -> list[Any]:
    """Python numbers of 7 digits; None, which is a gap in a line, for values that are not finite."""
    return [float(f"{v:.7g}") if isinstance(v, (int, float)) and np.isfinite(v) else None for v in map(_plain, values)]


def _plain(value: Any) -> Any:
    """A number of numpy as a Python number."""
    return value.item() if isinstance(value, np.generic) else value


def layout(y: str, x: str = "epoch", **more: Any) -> dict[str, Any]:
    """A layout with titles of the axes. The page sets the colours."""
    integers = {"tickformat": "d"} if x == "epoch" else {}
    return {"xaxis": {"title": {"text": x}, **integers}, "yaxis": {"title": {"text": y}}, **more}


def rows_by_pair(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield the arm, "to <reference>" if there are several, and the rows by epoch of each pair of a table."""
    several = table["reference"].nunique() > 1
    for (reference, arm), rows in table.groupby(["reference", "arm"], sort=False):
        yield str(arm), f"to {reference}" if several else "", rows.sort_values("epoch")


def reference_of(rows: pd.DataFrame) -> str:
    """The reference of the rows of a pair."""
    return str(rows["reference"].iloc[0])


def add_variant(variants: dict[str, Figure], name: str, layout: Mapping[str, Any]) -> Figure:
    """Return the variant called `name`; add it with this layout and no traces if it is new."""
    return variants.setdefault(name, {"data": [], "layout": dict(layout)})
