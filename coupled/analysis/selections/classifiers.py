"""Charts of classifiers: reliability curves, errors on corrupted images."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd

from coupled.analysis.corruptions.constants import CORRUPTIONS, SEVERITIES
from coupled.analysis.selections.by_name import ByName
from coupled.analysis.selections.looks import Looks, Source, interval_of, of_arms
from coupled.analysis.selections.panels import Axis, Panel, Panels, Series
from coupled.analysis.selections.seeds import derived
from coupled.analysis.selections.styles import NOISE, Style
from coupled.analysis.tables import largest_sample
from coupled.monitoring.terminal import counted

NAMES = {"h": "linear probe on h", "z": "linear probe on z", "logits": "classifier of the arm"}  # by module
Sources = Sequence[Source]


def reliability(sources: Sources, looks: Looks) -> list[Panel]:
    """Accuracy against confidence on test at the last epoch. A bin without images has no point. Keys: module."""
    panels = Panels()
    for source in sources:
        rows = source.table("reliability.csv")
        rows = rows[(rows["split"] == "test") & rows["count"].notna()] if len(rows) else rows
        epoch = rows["epoch"].max() if len(rows) else 0
        for module, name in NAMES.items():
            own = rows[(rows["module"] == module) & (rows["epoch"] == epoch)] if len(rows) else rows
            if own.empty:
                continue
            own = largest_sample(own)
            own = own[(own["bins"] == own["bins"].iloc[-1]) & (own["count"] > 0)]
            title = f"{name}, test images, epoch {epoch}"
            axes = Axis("accuracy", low=0.0, high=1.0), Axis("confidence", low=0.0, high=1.0)
            panel = panels.panel((module,), title, *axes, title)
            panel.count(own, "test")
            if not panel.series:
                exact = Series("calibrated", "", Style(NOISE, ":", ""), [0.0, 1.0], [0.0, 1.0], kind="curve")
                panel.series.append(exact)
            for arm, curve in of_arms(source, own):
                curve = curve.sort_values("bin")
                interval = interval_of(curve, "accuracy")
                panel.series.append(
                    looks.series(source, arm, curve["confidence"], curve["accuracy"], interval=interval)
                )
    return panels.filled()


class Errors(NamedTuple):
    """Errors over severities, mean over corruptions, and of each corruption, mean over severities."""

    over_severities: Panel
    of_corruptions: ByName


def corruption_errors(source: Source, looks: Looks) -> Errors | None:
    """Errors on corrupted test images at the last epoch, of the corruptions that have all severities; None without.

    An arm's own classifier is shown if it was measured, otherwise the probe.
    """
    table = source.table("robustness.csv")
    epoch = table["epoch"].max() if len(table) else 0
    rows = derived(source, partial(_errors, epoch), ["arm", "corruption", "severity", "num_images"])
    levels = rows.groupby("corruption")["severity"].agg(set)
    names = [name for name in CORRUPTIONS if name in levels and {*SEVERITIES} <= levels[name]]
    if not names:
        return None
    title = f"error, mean over {counted(len(names), 'corruption')}"
    x, y = Axis("severity (0: clean images)"), Axis(title, low=0.0, high=1.0)
    panel = Panel(("severity",), title, x, y, title)
    panel.count(rows, "test")
    for arm, own in of_arms(source, derived(source, partial(_by_severity, epoch, names), ["arm", "severity"])):
        own = own.sort_values("severity")
        panel.series.append(looks.series(source, arm, own["severity"], own["value"], interval=interval_of(own)))
    of_each = ByName(f"error, mean over severities, epoch {epoch}", [*names, "mean"])
    of_each.add(
        source, looks, derived(source, partial(_by_corruption, epoch, names), ["arm", "corruption"]), "corruption"
    )
    return Errors(panel, of_each)


def _errors(epoch: int, source: Source) -> pd.DataFrame:
    rows = source.table("robustness.csv")
    rows = rows[rows["epoch"] == epoch] if len(rows) else rows
    rows = rows[rows["source"] == rows["source"].iloc[-1]] if len(rows) else rows
    arms = [largest_sample(_preferred(own)) for _, own in of_arms(source, rows)]
    return pd.concat(arms or [rows]).reindex(columns=["arm", "corruption", "severity", "value", "num_images"])


def _preferred(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the arm's own classifier if there are any, otherwise those of the probe."""
    own = rows[rows["variant"] == "classifier"]
    return own if len(own) else rows


def _by_severity(epoch: int, names: Sequence[str], source: Source) -> pd.DataFrame:
    """The mean error over the corruptions, undefined if one is missing, and the error on clean images at 0."""
    rows = _errors(epoch, source)
    cells = rows.pivot(index=["arm", "severity"], columns="corruption", values="value")
    means = cells.reindex(columns=list(names)).mean(axis=1, skipna=False)
    if "none" in cells:
        means = cells["none"].where(cells["none"].notna(), means)
    return means.rename("value").reset_index().dropna(subset=["value"])


def _by_corruption(epoch: int, names: Sequence[str], source: Source) -> pd.DataFrame:
    """The mean error over the severities, and the mean of all corruptions."""
    rows = _errors(epoch, source)
    rows = rows[rows["corruption"].isin(list(names)) & rows["severity"].isin(SEVERITIES)]
    means = rows.groupby(["arm", "corruption"], sort=False)["value"].mean().reset_index()
    every = _by_severity(epoch, names, source)
    every = every[every["severity"].isin(SEVERITIES)].groupby("arm", sort=False)["value"].mean().reset_index()
    return pd.concat([means, every.assign(corruption="mean")], ignore_index=True)
