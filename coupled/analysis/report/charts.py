"""The figures of a report as plotly's JSON: tables in, traces and layouts out. Nothing is read or drawn here.

A chart has variants, of which the page shows one at a time. Each trace says in `meta` which arm it belongs to, so that
arms can be switched on and off; an arm has one colour in all charts, a run one kind of line. Times are epochs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import exprel

from coupled.analysis.plots.drawing import arm_colours
from coupled.analysis.report.tables import Run
from coupled.analysis.representations.layers import OUTPUTS
from coupled.analysis.tables import largest_sample, whole_encoder
from coupled.config.controls import later_twins, twins

Trace = dict[str, Any]
Figure = dict[str, Any]
OF_A_RUN = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
NOISE = "#999999"  # what twins differ by is noise
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross")


@dataclass(frozen=True)
class Chart:
    """One place on the page: a title, words on what is seen, and the variants by name; without any it is left out."""

    key: str
    title: str
    words: str
    variants: dict[str, Figure]


class Look:
    """Colours of arms and lines of runs, the same in all charts of a page."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = [run.name for run in runs]
        self.arms = list(dict.fromkeys(arm for run in runs for arm in run.arms))
        self.colours = arm_colours(self.arms)
        self.twins: dict[tuple[str, str], list[str]] = {}  # by run and reference; "" for an arm by itself
        for run in runs:
            arms = run.about["settings"]["arms"]
            self.twins |= {(run.name, ""): later_twins(arms), **{(run.name, arm): twins(arms, arm) for arm in arms}}

    def noise(self, run: Run, arm: str, reference: str = "") -> bool:
        """Whether an arm is a twin: of the one it is compared with, or by itself of an earlier one."""
        return arm in self.twins[run.name, reference]

    def name(self, run: Run, arm: str, more: str = "", reference: str = "") -> str:
        """What the legend says."""
        floor = "noise floor" if self.noise(run, arm, reference) else ""
        return " · ".join(filter(None, (arm, floor, more, run.name if len(self.runs) > 1 else "")))

    def line(
        self, run: Run, arm: str, x: Any, y: Any, more: str = "", dash: str = "", reference: str = "", **trace: Any
    ) -> Trace:
        """A line over epochs; `more` tells lines of one arm apart, by `dash`, and such lines have no markers.

        Lines of one arm to several references, which `more` names, differ as runs do.
        """
        place = self.runs.index(run.name)
        if more and reference in run.arms:
            place += len(self.runs) * run.arms.index(reference)
        colour = NOISE if self.noise(run, arm, reference) else self.colours[arm]
        return {
            "type": "scatter",
            "mode": "lines" if dash else "lines+markers",
            "name": self.name(run, arm, more, reference),
            "x": numbers(x),
            "y": numbers(y),
            "line": {"color": colour, "dash": dash or OF_A_RUN[place % len(OF_A_RUN)], "width": 1.4 if dash else 2},
            "marker": {"size": 5, "symbol": SYMBOLS[place % len(SYMBOLS)], "color": colour},
            "meta": {"arm": arm},
            **trace,
        }


def numbers(values: Any) -> list[Any]:
    """Plain numbers of 7 digits; None, a gap in a line, for what is not finite."""
    return [float(f"{v:.7g}") if isinstance(v, (int, float)) and np.isfinite(v) else None for v in map(_plain, values)]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def layout(y: str, x: str = "epoch", **more: Any) -> dict[str, Any]:
    """Titles of the axes; colours are the page's."""
    integers = {"tickformat": "d"} if x == "epoch" else {}
    return {"xaxis": {"title": {"text": x}, **integers}, "yaxis": {"title": {"text": y}}, **more}


def pairs(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(arm, " to <reference>" where there are several, rows by epoch) of a table of pairs."""
    several = table["reference"].nunique() > 1
    for (reference, arm), rows in table.groupby(["reference", "arm"], sort=False):
        yield str(arm), f"to {reference}" if several else "", rows.sort_values("epoch")


def reference_of(rows: pd.DataFrame) -> str:
    """The reference of the rows of a pair."""
    return str(rows["reference"].iloc[0])


def headline(runs: Sequence[Run], look: Look) -> Chart:
    """Weights part, representations stay: the two panels that the project is about."""
    traces = []
    for run in runs:
        gaps, scores = run.table("weight_gap.csv"), run.table("test_alignment.csv")
        if len(gaps):
            for arm, more, rows in pairs(whole_encoder(gaps, "mean")):
                to = {"reference": reference_of(rows), "legendgroup": f"{run.name}{arm}{more}"}
                traces.append(look.line(run, arm, rows["epoch"], rows["gap"], more, **to))
        if len(scores):
            scores = scores[(scores["module"] == "h") & (scores["metric"] == "cka")]
            for arm, more, rows in pairs(largest_sample(scores)):
                group = f"{run.name}{arm}{more}"
                to = {"reference": reference_of(rows), "legendgroup": group, "xaxis": "x2", "yaxis": "y2"}
                line = look.line(run, arm, rows["epoch"], rows["value"], more, **to)
                traces.append({**line, "showlegend": group not in {each.get("legendgroup") for each in traces}})
    figure = {
        "data": traces,
        "layout": {
            "grid": {"rows": 1, "columns": 2, "pattern": "independent", "xgap": 0.16},
            **layout("weight gap, mean over layers"),
            "xaxis2": {"title": {"text": "epoch"}, "tickformat": "d"},
            "yaxis2": {"title": {"text": "CKA of h, test images"}},
        },
    }
    words = (
        "Left the weights, right the representations, against the reference arm's. Arms that share their start begin at"
        " gap 0 and CKA 1; grey twins show the noise floor."
    )
    return Chart("headline", "Weights part, representations stay?", words, {"": figure} if traces else {})


def alignment(runs: Sequence[Run], look: Look) -> Chart:
    """Every pair metric of every pair, with intervals where they were computed."""
    variants: dict[str, Figure] = {}
    for run in runs:
        for split in ("test", "train"):
            table = run.table(f"{split}_alignment.csv")
            if table.empty:
                continue
            table = table.sort_values("module", key=lambda layers: ~layers.isin(OUTPUTS), kind="stable")
            for (metric, layer), part in table.groupby(["metric", "module"], sort=False):
                figure = variant(variants, f"{metric}, {layer}, {split} images", layout(str(metric)))
                for arm, more, rows in pairs(largest_sample(part)):
                    line = look.line(run, arm, rows["epoch"], rows["value"], more, reference=reference_of(rows))
                    figure["data"].append(_with_interval(line, rows))
    words = "One pair a line; bars are 95 % intervals over images, where --confidence computed them."
    return Chart("alignment", "Alignment of every pair", words, variants)


def _with_interval(line: Trace, rows: pd.DataFrame) -> Trace:
    if "ci_low" not in rows or not rows["ci_low"].notna().any():
        return line
    up, down = rows["ci_high"] - rows["value"], rows["value"] - rows["ci_low"]
    bar = {"type": "data", "symmetric": False, "array": numbers(up), "arrayminus": numbers(down), "thickness": 1}
    return {**line, "error_y": {**bar, "width": 3}}


def growth(runs: Sequence[Run], look: Look) -> Chart:
    """The global gap and the two curves that were fitted to it."""
    variants: dict[str, Figure] = {}
    for run in runs:
        gaps, fits = run.table("weight_gap.csv"), run.table("weight_gap_growth.csv")
        if gaps.empty or fits.empty:
            continue
        gaps = whole_encoder(gaps, "global")
        for reference, part in gaps.groupby("reference", sort=False):
            figure = variant(variants, f"to {reference}", layout("global weight gap"))
            for arm, _, rows in pairs(part):
                to = {"reference": str(reference)}
                figure["data"].append(look.line(run, arm, rows["epoch"], rows["gap"], mode="markers", **to))
                of_pair = fits[(fits["reference"] == reference) & (fits["arm"] == arm)]
                t = np.linspace(0, float(rows["epoch"].max()), 80)
                for model, sign, dash in (("saturation", -1, "dash"), ("exponential", 1, "dot")):
                    for fit in of_pair[of_pair["model"] == model].to_dict("records"):
                        with np.errstate(over="ignore", invalid="ignore"):  # a gap in the line
                            curve = fit["slope"] * t * exprel(sign * fit["rate"] * t)
                        figure["data"].append(look.line(run, arm, t, curve, model, dash, **to))
    words = "Points are measured; both curves start at 0 and have two parameters. The table says which is nearer."
    return Chart("growth", "Does the gap grow or saturate?", words, variants)


def throughput(runs: Sequence[Run], look: Look) -> Chart:
    """Images a second of each arm's own part of the step."""
    figure: Figure = {"data": [], "layout": layout("images per second", showlegend=True)}
    for run in runs:
        table = run.table("epochs.csv")
        for arm, rows in table.groupby("arm", sort=False) if len(table) else ():
            figure["data"].append(look.line(run, str(arm), rows["epoch"], rows["images_per_second"]))
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return Chart("throughput", "Throughput", "As epochs.csv has it.", {"": figure} if figure["data"] else {})


def variant(variants: dict[str, Figure], name: str, of: Mapping[str, Any]) -> Figure:
    """The variant called `name`, made with the layout `of` if it is new."""
    return variants.setdefault(name, {"data": [], "layout": dict(of)})
