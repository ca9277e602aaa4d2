"""Labels and styles of the series of a chart: an arm has the same in all charts of a page and in all figures."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

from coupled.analysis.selections.panels import Kind, Series, numbers
from coupled.analysis.selections.styles import COLOURS, NOISE, Style, arm_colours, arm_indices, style
from coupled.config.controls import twins, twins_of_earlier_arms


class Source(Protocol):
    """One run, or runs that differ only in their seeds with the means of their tables."""

    @property
    def name(self) -> str:
        """The name in labels, unique among the sources of a chart."""

    @property
    def seeds(self) -> int:
        """The number of runs."""

    @property
    def arm_names(self) -> Sequence[str]:
        """All arms, in the order of the settings."""

    @property
    def arm_settings(self) -> Mapping[str, Mapping[str, Any]]:
        """The settings of every arm, as in run.json."""

    def twins_of(self, reference: str) -> Sequence[str]:
        """The twins of this reference; of "": all twins of earlier arms."""

    @property
    def each_seed(self) -> "Sequence[Source]":
        """The single runs."""

    def table(self, name: str) -> pd.DataFrame:
        """The newest rows of a table; an empty frame, or ValueError, if it does not exist."""


class Looks:
    """Labels and styles of arms, the same in all charts.

    With several sources the label is "source:arm" and the dash is that of the source; arms that share a colour differ
    in dash as well. `swatches` are the colours by arm, grey for twins of earlier arms.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = [source.name for source in sources]
        self.arms = list(dict.fromkeys(arm for source in sources for arm in source.arm_names))
        self.colours, self._indices = arm_colours(self.arms), arm_indices(self.arms)
        twins = {arm for source in sources for arm in source.twins_of("")}
        self.swatches = {arm: NOISE if arm in twins else colour for arm, colour in self.colours.items()}

    def label(self, source: Source, arm: str, more: str = "", reference: str = "", band: bool = False) -> str:
        """The text in the legend; `more` is the rest that distinguishes several lines of an arm.

        Of several seeds it has their number; with a `band` it says what the band shows.
        """
        floor = "noise floor" if arm in source.twins_of(reference) else ""
        named = f"{source.name}:{arm}" if len(self.sources) > 1 else arm
        seeds = f"{'± sd, ' if band else ''}n = {source.seeds}" if source.seeds > 1 else ""
        return " · ".join(filter(None, (named, floor, more, seeds)))

    def style(self, source: Source, arm: str, reference: str = "", shift: int = 0) -> Style:
        """The style of an arm's line; lines to several references have different shifts. Twins are grey."""
        index, sources = self._indices[arm], len(self.sources)
        if sources == 1:
            found = style(self.colours[arm], index + index // len(COLOURS) + shift, index + shift)
        else:
            place = self.sources.index(source.name)
            dash = place + sources * (index // len(COLOURS) + shift)
            found = style(self.colours[arm], dash, index + shift + place)  # points of one arm differ in their markers
        return found._replace(color=NOISE) if arm in source.twins_of(reference) else found

    def series(
        self,
        source: Source,
        arm: str,
        x: Any,
        y: Any,
        more: str = "",
        reference: str = "",
        interval: tuple[Any, Any] | None = None,
        dash: Any = None,
        kind: Kind | None = None,
        texts: Sequence[str] = (),
    ) -> Series:
        """A series of an arm. `more` labels one of several lines of an arm; a line with `dash` has no markers.

        If `more` names the reference, the line differs in dash and marker from those to other references.
        """
        names = list(source.arm_names)
        shift = names.index(reference) if more.startswith("to ") and reference in names else 0
        look = self.style(source, arm, reference, shift)
        look = look if dash is None else look._replace(linestyle=dash)
        low, high = (None, None) if interval is None else map(numbers, interval)
        label = self.label(source, arm, more, reference, interval is not None)
        how: Kind = kind or ("line" if dash is None else "curve")
        return Series(label, arm, look, numbers(x), numbers(y), low, high, source.seeds, how, tuple(texts))

    def no_arm(self, source: Source, x: Any, y: Any, label: str, dash: Any) -> Series:
        """A grey curve that belongs to no arm, so that no switch of an arm hides it."""
        named = f"{source.name}: {label}" if len(self.sources) > 1 else label
        return Series(named, "", Style("#888888", dash, ""), numbers(x), numbers(y), seeds=source.seeds, kind="curve")


def twins_of(arms: Mapping[str, Mapping[str, Any]], reference: str) -> list[str]:
    """The twins of a reference among arms with these settings; of "" the twins of all earlier arms."""
    return twins(arms, reference) if reference in arms else [] if reference else twins_of_earlier_arms(arms)


def of_arms(source: Source, rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The arms in the rows, in the order of the source, each with its rows in the order of epochs."""
    by = {str(arm): each for arm, each in rows.groupby("arm", sort=False)} if len(rows) else {}
    return [(arm, in_order(by[arm])) for arm in source.arm_names if arm in by]


def of_pairs(source: Source, rows: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Reference, arm and rows of each pair in the rows, arms in the order of the source."""
    references = [str(each) for each in rows["reference"].unique()] if len(rows) else []
    return [(each, arm, own) for each in references for arm, own in of_arms(source, rows[rows["reference"] == each])]


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of their epochs."""
    return rows.sort_values("epoch", kind="stable") if "epoch" in rows else rows


def interval_of(rows: pd.DataFrame, column: str = "value") -> tuple[Any, Any] | None:
    """One standard deviation over seeds around the mean, or the interval over images of one run; None without one."""
    if f"{column}_sd" in rows:
        return rows[column] - rows[f"{column}_sd"], rows[column] + rows[f"{column}_sd"]
    if column == "value" and "ci_low" in rows and rows["ci_low"].notna().any():
        return rows["ci_low"], rows["ci_high"]
    return None


def to_the(rows: Sequence[pd.DataFrame]) -> str:
    """The name of the reference for titles: that of all rows, or "the reference arm" if there are several."""
    names = {str(each) for table in rows if len(table) for each in table["reference"].unique()}
    return names.pop() if len(names) == 1 else "the reference arm"
