"""Charts against an option by which arms of one objective differ."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from coupled.analysis.selections.panels import Axis, Panel, Series
from coupled.analysis.selections.styles import Style
from coupled.config import by_name
from coupled.config.user_code import is_reference

LEAST = 3  # values of an option that make a line
COLOUR, BESIDE = "#0072B2", ("-", "--", ":", "-.")


class OptionPath(NamedTuple):
    """Arms that differ in one option of their objective alone: arm -> value, and the arms whose value is no number."""

    objective: str
    option: str
    values: dict[str, float]
    beside: list[str]


def option_paths(arms: Mapping[str, Mapping[str, Any]]) -> list[OptionPath]:
    """Return every path of at least three values of a number among resolved arms, in the order of the arms.

    An option that an arm does not name has its default, if the objective is one of the package.
    """
    whole = {name: {**_defaults(str(arm["objective"])), **arm} for name, arm in arms.items()}
    found = []
    for option in dict.fromkeys(key for arm in whole.values() for key in arm):
        alike: dict[str, list[str]] = {}
        for name, arm in whole.items():
            if option in arm:
                rest = {key: value for key, value in arm.items() if key != option}
                alike.setdefault(json.dumps(rest, sort_keys=True), []).append(name)
        for names in alike.values():
            values = {name: whole[name][option] for name in names if type(whole[name][option]) in (int, float)}
            if len({*values.values()}) >= LEAST:
                beside = [name for name in names if whole[name][option] is None]
                found.append(OptionPath(str(whole[names[0]]["objective"]), option, values, beside))
    return found


def _defaults(objective: str) -> dict[str, Any]:
    """Return the default options of an objective of the package; {} for the user's code, which is not imported."""
    if is_reference(objective):
        return {}
    parameters = inspect.signature(getattr(by_name.find("coupled.objectives", objective), objective)).parameters
    return {name: each.default for name, each in parameters.items() if each.default is not inspect.Parameter.empty}


def against_option(path: OptionPath, panel: Panel) -> Panel:
    """Return the values at the last epoch of a panel over epochs against the option.

    The arms of the path are one line. Arms whose value of the option is no number are grey lines.
    """
    last = max(panel.places())
    ends = {series.arm: _at(series, last) for series in panel.series if last in series.x}
    found = Panel(panel.key, panel.name, Axis(f"{path.option} of {path.objective}"), panel.y, panel.short)
    found.counts = panel.counts
    arms = [arm for arm in sorted(path.values, key=lambda arm: path.values[arm]) if arm in ends]
    if not arms:
        return found
    x = [path.values[arm] for arm in arms]
    y, low, high = ([ends[arm][place] for arm in arms] for place in range(3))
    seeds = max(series.seeds for series in panel.series)
    line = Series("", "", Style(COLOUR, "-", "o"), x, y, low, high, seeds)
    found.series.append(line if np.isfinite(low).any() else replace(line, low=None, high=None))
    for number, arm in enumerate(each for each in path.beside if each in ends):
        style = Style("#8c8c8c", BESIDE[number % len(BESIDE)], "")
        found.series.append(Series(arm, "", style, [x[0], x[-1]], [ends[arm][0]] * 2, seeds=seeds, kind="curve"))
    return found


def _at(series: Series, x: float) -> tuple[float, float, float]:
    """The value and the ends of the interval at x, NaN without an interval."""
    place = list(series.x).index(x)
    low, high = (float("nan") if ends is None else ends[place] for ends in (series.low, series.high))
    return series.y[place], low, high
