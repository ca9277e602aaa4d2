"""The figure of alignment and weight gap against an option by which arms of one objective differ."""

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import plain
from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.selections.pairs import ALIGNMENTS
from coupled.analysis.selections.panels import n_of_rows
from coupled.analysis.tables import whole_encoder
from coupled.config import by_name
from coupled.config.user_code import is_reference

LEAST = 3  # values of an option that make a line
COLOUR, BESIDE = "#0072B2", ("-", "--", ":", "-.")
Panels = Mapping[str, pd.DataFrame]


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


def options(tables: FigureTables) -> Figure:
    """Return the figure of CKA, RSA and weight gap against each option of `option_paths`, at the last epoch.

    Shaded areas are confidence intervals, if the table has them. Panels without rows are left out. Raises ValueError
    without a path, or without rows of h in test_alignment.csv.
    """
    paths = option_paths(tables.arm_settings)
    if not paths:
        raise ValueError(f"the run has no {LEAST} arms that differ only in one number of their objective")
    scores = tables.scores()
    scores = scores[scores["module"] == "h"].rename(columns={"ci_low": "low", "ci_high": "high"})
    panels = {
        f"{title}, test images, h": scores[scores["metric"] == metric]
        for metric, title in ALIGNMENTS.items()
        if metric in {*scores["metric"]}
    }
    if not panels:
        raise ValueError(f"{tables.folder / 'test_alignment.csv'}: no rows of {' or '.join(ALIGNMENTS)} of h")
    if (tables.folder / "weight_gap.csv").exists():
        gaps = whole_encoder(tables.gaps(), "mean")
        panels["weight gap, mean over layers"] = gaps.assign(value=gaps["gap"])
    last = {title: rows[rows["epoch"] == rows["epoch"].max()] for title, rows in panels.items()}
    epochs = ", ".join(sorted({str(rows["epoch"].max()) for rows in panels.values()}))
    n = n_of_rows(next(iter(last.values())), "test", tables.seeds)
    return options_figure(paths, last, f"compared with {tables.reference}, epoch {epochs}\n{n}")


def options_figure(paths: Sequence[OptionPath], panels: Panels, title: str) -> Figure:
    """Return a figure with a row for each path and a column for each panel.

    The rows of a panel have the columns `arm` and `value`, and for a shaded area `low` and `high`; one row per arm.
    """
    figure = Figure(figsize=(3.3 * len(panels) + 0.2, 2.7 * len(paths) + 0.4), layout="constrained")
    grid = figure.subplots(len(paths), len(panels), squeeze=False, sharey="col")
    for axes_of_path, path in zip(grid, paths, strict=True):
        for axes, (name, rows) in zip(axes_of_path, panels.items(), strict=True):
            _draw(axes, path, rows.set_index("arm"))
            axes.set_title(name if axes in grid[0] else "", fontsize="medium")
            axes.set_xlabel(f"{path.option} of {path.objective}")
        if path.beside and (handles := axes_of_path[0].get_legend_handles_labels()[0]):
            axes_of_path[0].legend(handles=handles, frameon=False, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw(axes: Axes, path: OptionPath, by_arm: pd.DataFrame) -> None:
    """Draw the line of the path, and a grey line for each arm whose value of the option is no number."""
    values = pd.Series(path.values).rename("x").sort_values(kind="stable")
    points = by_arm.join(values, how="inner").sort_values("x")
    axes.plot(points["x"], points["value"], color=COLOUR, marker="o", markersize=4, clip_on=False)
    if "low" in points and points["low"].notna().any():
        axes.fill_between(points["x"], points["low"], points["high"], color=COLOUR, alpha=0.15, linewidth=0)
    for number, arm in enumerate(each for each in path.beside if each in by_arm.index):
        style = BESIDE[number % len(BESIDE)]
        axes.axhline(by_arm["value"][arm], color="0.55", linewidth=1, linestyle=style, label=arm)
    plain(axes)
