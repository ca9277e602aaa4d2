"""Draws panels of `selections` as plotly's JSON. Nothing is read or computed here.

A chart has variants; the page shows one at a time. The `meta` of each trace names its arm, so that the page can switch
arms on and off.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coupled.analysis.selections.panels import MARGIN, Axis, Floor, Panel, Ring, Series, as_drawn, n_of
from coupled.analysis.selections.styles import DASHES, MARKERS

Trace = dict[str, Any]
Figure = dict[str, Any]
LETTERS, STACKED = 36, 24  # of a line of an axis title: more are cut, of two panels one below the other
POINT, POINT_OF_LINE = 7, 5  # pixels
BESIDE = {"rows": 1, "columns": 2, "pattern": "independent", "xgap": 0.2}
HIDDEN = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}


@dataclass(frozen=True)
class Chart:
    """One chart of the page: title, caption and its variants by name. A chart without variants is left out."""

    key: str
    title: str
    caption: str
    variants: dict[str, Figure]


def chart(key: str, title: str, caption: str, panels: Sequence[Panel]) -> Chart:
    """A chart with a variant for each panel; the caption ends with the numbers of images and seeds."""
    return Chart(key, title, with_n(caption, panels), {panel.name: figure(panel) for panel in panels})


def with_n(caption: str, panels: Sequence[Panel]) -> str:
    """The caption and the numbers of images and seeds."""
    counts = n_of(panels)
    return f"{caption} {counts[:1].upper() + counts[1:] if counts[:2] != 'n ' else counts}." if counts else caption


def figure(panel: Panel) -> Figure:
    """A panel as traces and layout. The page sets the colours of axes and text."""
    layout = {"xaxis": _axis(panel.x, panel), "yaxis": _axis(panel.y, panel), **_mode([panel])}
    return {"data": traces(panel), "layout": layout}


def side_by_side(panels: Sequence[Panel]) -> Figure:
    """Two panels with one legend; a single one has the whole width."""
    if len(panels) == 1:
        return figure(panels[0])
    data: list[Trace] = []
    layout: dict[str, Any] = {"grid": BESIDE, **_mode(panels)}
    for place, panel in enumerate(panels):
        suffix = str(place + 1) if place else ""
        layout |= {f"xaxis{suffix}": _axis(panel.x, panel), f"yaxis{suffix}": _axis(panel.y, panel, STACKED)}
        names = {each["name"] for each in data if "name" in each}
        for trace in traces(panel):
            axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"} if place else {}
            grouped = {"legendgroup": trace["name"]} if "name" in trace else {}
            again = {"showlegend": False} if trace.get("name") in names else {}
            data.append({**trace, **axes, **grouped, **again})
    return {"data": data, "layout": layout}


def _mode(panels: Sequence[Panel]) -> dict[str, Any]:
    """Points of a single epoch are drawn side by side."""
    return {} if any(panel.only_epoch is None for panel in panels) else {"scattermode": "group"}


def traces(panel: Panel) -> list[Trace]:
    """The noise floor and the series of a panel; a band or bars show the interval of a series."""
    panel = as_drawn(panel)
    floor = _floor(panel.floor) if panel.floor else []
    rings = _rings(panel.ring) if panel.ring else []
    return [*floor, *(each for series in panel.series for each in [*_band(series), trace(series)]), *rings]


def trace(series: Series) -> Trace:
    """A series as a trace of plotly."""
    style, mode = series.style, {"line": "lines+markers", "curve": "lines", "points": "markers"}[series.kind]
    found: Trace = {
        "type": "scatter",
        "mode": mode,
        "name": series.label,
        "x": numbers(series.x),
        "y": numbers(series.y),
        "line": {"color": style.color, "dash": DASHES[style.linestyle], "width": 1.4 if series.kind == "curve" else 2},
    }
    if style.marker:
        size = POINT if series.kind == "points" or len(series.x) == 1 else POINT_OF_LINE
        size += 2 * MARKERS[style.marker].startswith("triangle")  # plotly's are smaller than the others
        found["marker"] = {"size": size, "symbol": MARKERS[style.marker], "color": style.color}
        found["cliponaxis"] = False  # a point at the end of an axis, such as CKA 1, is whole
    if series.arm:
        found["meta"] = {"arm": series.arm}
    if series.seeds > 1:
        found["legendgroup"] = series.label  # of its band, too
    if series.texts:
        found["text"] = list(series.texts)
    if not series.has_band and series.low is not None and series.high is not None:
        up, down = np.subtract(series.high, series.y), np.subtract(series.y, series.low)
        bars = {"type": "data", "symmetric": False, "array": numbers(up), "arrayminus": numbers(down), "thickness": 1}
        found["error_y"] = {**bars, "width": 3}
    return found


def _band(series: Series) -> list[Trace]:
    """The shaded standard deviation of a mean over seeds: two hidden lines, filled between; two more after a gap."""
    if not series.has_band or series.low is None or series.high is None:
        return []
    fill = {"fill": "tonexty", "fillcolor": _transparent(series.style.color, 0.15)}
    meta = {"meta": {"arm": series.arm}} if series.arm else {}
    found = []
    known = np.flatnonzero(np.isfinite(series.low) & np.isfinite(series.high))
    for part in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        x, low, high = (numbers([values[place] for place in part]) for values in (series.x, series.low, series.high))
        lower = {**HIDDEN, **meta, "legendgroup": series.label, "x": x, "y": low}
        found += [lower, {**lower, **fill, "y": high}] if len(part) else []
    return found


def _rings(ring: Ring) -> list[Trace]:
    """A ring around the last point of each arm, with one entry in the legend."""
    marker = {"size": 2 * POINT, "symbol": "circle-open", "color": "#888888"}
    found = []
    for number, arm in enumerate(dict.fromkeys(ring.arms)):
        x, y = ([value for value, of in zip(values, ring.arms, strict=True) if of == arm] for values in ring[1:3])
        look = {"type": "scatter", "mode": "markers", "name": ring.label, "marker": marker, "cliponaxis": False}
        entry = {"legendgroup": ring.label, "showlegend": number == 0, "legendrank": 2000, "hoverinfo": "skip"}
        found.append({**look, **entry, "x": numbers(x), "y": numbers(y), "meta": {"arm": arm, "ring": True}})
    return found


def _floor(floor: Floor) -> list[Trace]:
    lower = {**HIDDEN, "x": numbers(floor.x), "y": numbers(floor.low)}
    fill = {"fill": "tonexty", "fillcolor": "rgba(153, 153, 153, 0.35)", "line": {"width": 2, "color": "#999999"}}
    return [
        lower,
        {**lower, **fill, "y": numbers(floor.high), "name": floor.label, "showlegend": True, "legendrank": 2000},
    ]


def _transparent(colour: str, share: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {share})"


def _axis(axis: Axis, panel: Panel, letters: int = LETTERS) -> dict[str, Any]:
    """Title, scale and limits of an axis. Few values on a logarithmic x axis, and single epochs, have a tick each."""
    found: dict[str, Any] = {"title": {"text": "<br>".join(textwrap.wrap(axis.title, letters)), "standoff": 6}}
    limits = {"clipmin": axis.low, "clipmax": axis.high}
    finite = {name: value for name, value in limits.items() if np.isfinite(value)}
    found |= {"tickformat": "d"} if axis.whole else {}
    if axis.whole and (epoch := panel.only_epoch) is not None:
        found |= {"tickvals": [epoch], "range": [epoch - 0.5, epoch + 0.5]}
    found |= {"type": "log"} if axis.log else {}
    if axis is panel.y and (decades := panel.decades()):
        return found | {"range": [float(np.log10(end)) for end in decades]}
    if axis is panel.y and panel.only_epoch is not None and (drawn := panel.ends()):
        return found | {"range": _range(axis, *drawn)}  # plotly starts the axis of points side by side at 0
    if axis is panel.x and (ticks := panel.ticks()):
        ends = (ticks[0] / MARGIN, ticks[-1] * MARGIN)
        found |= {"tickvals": ticks, "range": [float(np.log10(end)) for end in ends]}
    found |= {"rangemode": "tozero"} if axis.zero else {}
    return found | ({"autorangeoptions": finite} if finite and not axis.log else {})


def _range(axis: Axis, low: float, high: float) -> list[float]:
    """The ends of an axis: 6 % beyond the drawn values, but not beyond what is possible."""
    low, high = (float(np.log10(low)), float(np.log10(high))) if axis.log else (low, high)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    if axis.log:
        return [low - margin, high + margin]
    return [0.0 if axis.zero and low >= 0 else max(low - margin, axis.low), min(high + margin, axis.high)]


def numbers(values: Any) -> list[Any]:
    """Python numbers of 7 digits; None, which is a gap in a line, for values that are not finite."""
    return [float(f"{v:.7g}") if isinstance(v, (int, float)) and np.isfinite(v) else None for v in map(_plain, values)]


def _plain(value: Any) -> Any:
    """A number of numpy as a Python number."""
    return value.item() if isinstance(value, np.generic) else value
