"""What the charts of a report share: tables in, plotly's JSON out. Nothing is read or drawn here.

A chart has variants, of which the page shows one at a time. Each trace says in `meta` which arm it belongs to, so that
arms can be switched on and off; an arm has one colour in all charts, a run one kind of line. Times are epochs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from coupled.analysis.plots.drawing import arm_colours
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
NOISE = "#999999"  # what twins differ by is noise
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross")


@dataclass(frozen=True)
class Chart:
    """One chart of the page: title, caption and its variants by name; without any it is left out."""

    key: str
    title: str
    caption: str
    variants: dict[str, Figure]


class TraceStyles:
    """Colours of arms and dashes of runs, the same in all charts of a page."""

    def __init__(self, runs: Sequence[ReportRun]) -> None:
        self.runs = [run.name for run in runs]
        self.arms = list(dict.fromkeys(arm for run in runs for arm in run.arms))
        self.colours = arm_colours(self.arms)
        self.twins: dict[tuple[str, str], list[str]] = {}  # by run and reference; "" for an arm by itself
        for run in runs:
            arms = run.run.description["settings"]["arms"]
            self.twins |= {
                (run.name, ""): twins_of_earlier_arms(arms),
                **{(run.name, arm): twins(arms, arm) for arm in arms},
            }

    def is_noise(self, run: ReportRun, arm: str, reference: str = "") -> bool:
        """Whether an arm is a twin: of the one it is compared with, or by itself of an earlier one."""
        return arm in self.twins[run.name, reference]

    def name(self, run: ReportRun, arm: str, more: str = "", reference: str = "") -> str:
        """What the legend says."""
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
        """A line over epochs; `more` tells lines of one arm apart, by `dash`, and such lines have no markers.

        Lines of one arm to several references, which `more` names, differ as runs do.
        """
        index = self.runs.index(run.name)
        if more and reference in run.arms:
            index += len(self.runs) * run.arms.index(reference)
        colour = NOISE if self.is_noise(run, arm, reference) else self.colours[arm]
        return {
            "type": "scatter",
            "mode": "lines" if dash else "lines+markers",
            "name": self.name(run, arm, more, reference),
            "x": numbers(x),
            "y": numbers(y),
            "line": {"color": colour, "dash": dash or DASHES[index % len(DASHES)], "width": 1.4 if dash else 2},
            "marker": {"size": 5, "symbol": SYMBOLS[index % len(SYMBOLS)], "color": colour},
            "meta": {"arm": arm},
            **trace,
        }


def numbers(values: Any) -> list[Any]:
    """Plain numbers of 7 digits; None, a gap in a line, for what is not finite."""
    return [float(f"{v:.7g}") if isinstance(v, (int, float)) and np.isfinite(v) else None for v in map(_plain, values)]


def _plain(value: Any) -> Any:
    """A number of numpy as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def layout(y: str, x: str = "epoch", **more: Any) -> dict[str, Any]:
    """Titles of the axes; colours are the page's."""
    integers = {"tickformat": "d"} if x == "epoch" else {}
    return {"xaxis": {"title": {"text": x}, **integers}, "yaxis": {"title": {"text": y}}, **more}


def rows_by_pair(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(arm, "to <reference>" where there are several, rows by epoch) of a table of pairs."""
    several = table["reference"].nunique() > 1
    for (reference, arm), rows in table.groupby(["reference", "arm"], sort=False):
        yield str(arm), f"to {reference}" if several else "", rows.sort_values("epoch")


def reference_of(rows: pd.DataFrame) -> str:
    """The reference of the rows of a pair."""
    return str(rows["reference"].iloc[0])


def add_variant(variants: dict[str, Figure], name: str, layout: Mapping[str, Any]) -> Figure:
    """The variant called `name`, with this layout and no traces if it is new."""
    return variants.setdefault(name, {"data": [], "layout": dict(layout)})
