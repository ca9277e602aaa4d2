"""Colour, dash and marker of each arm: the same in every figure and in the report."""

from collections.abc import Sequence
from typing import Any, NamedTuple

# Based on the palette of Okabe and Ito for colour-blind readers, with colours that are visible on white and on black.
# Dashes and markers tell the arms apart in grey print, and arms of one colour if there are more arms than colours.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#6B7A00", "#8C6BB1"),
    *("#A6333F", "#7CB342", "#B5179E", "#8A5A44"),
)
DASHES: dict[Any, str] = {  # of matplotlib -> of plotly
    "-": "solid",
    "--": "dash",
    "-.": "dashdot",
    ":": "dot",
    (0, (9, 3)): "longdash",
    (0, (9, 3, 1, 3)): "longdashdot",
}
MARKERS = {  # of matplotlib -> of plotly
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
}
NOISE = "#999999"  # the colour of twins
FIRST_ARMS = ("nscl", "scl", "ce", "cl")  # these have the same styles in every run


class Style(NamedTuple):
    """The style of one arm in every figure; the fields are arguments of matplotlib's `plot`."""

    color: str
    linestyle: Any  # a key of DASHES
    marker: str


def arm_indices(arms: Sequence[str]) -> dict[str, int]:
    """The index of each arm in the cycles of styles; `arms` in the order of run.json."""
    order = [*FIRST_ARMS, *(arm for arm in arms if arm not in FIRST_ARMS)]
    return {arm: order.index(arm) for arm in arms}


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """The colour of each arm of a run."""
    return {arm: COLOURS[i % len(COLOURS)] for arm, i in arm_indices(arms).items()}


def arm_styles(arms: Sequence[str]) -> dict[str, Style]:
    """The style of each arm of a run; `arms` are all arms in the order of run.json, whichever are drawn.

    Arms with the same colour have different dashes, up to 72 arms.
    """
    colours = arm_colours(arms)
    return {arm: style(colours[arm], i + i // len(COLOURS), i) for arm, i in arm_indices(arms).items()}


def style(colour: str, dash: int, marker: int) -> Style:
    """The style with this colour and the dash and marker at these places of their cycles."""
    return Style(colour, list(DASHES)[dash % len(DASHES)], list(MARKERS)[marker % len(MARKERS)])
