"""The style of every figure: one colour, dash and marker per arm, plain axes, PNG and PDF."""

import io
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coupled.storage.atomic_files import write_durably

# Based on the palette of Okabe and Ito for colour-blind readers, with colours that are visible on white and on black.
# Dashes and markers tell the arms apart in grey print, and arms of one colour if there are more arms than colours.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#7F7F7F", "#8C6BB1"),
    *("#A6333F", "#7CB342", "#B5179E", "#8A5A44"),
)
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LETTERS = 12  # of a note, in an inch
STEM, TOP = ("stem", "patch_embed", "conv_stem", "conv1", "bn1"), ("norm", "head", "projector", "h", "z")  # of timm
FIRST_ARMS = ("nscl", "scl", "ce", "cl")  # these have the same styles in every run


class Style(NamedTuple):
    """The style of one arm in every figure; the fields are arguments of matplotlib's `plot`."""

    color: str
    linestyle: str
    marker: str


def arm_indices(arms: Sequence[str]) -> dict[str, int]:
    """The index of each arm in the cycles of styles; `arms` in the order of run.json."""
    order = [*FIRST_ARMS, *(arm for arm in arms if arm not in FIRST_ARMS)]
    return {arm: order.index(arm) for arm in arms}


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """The colour of each arm of a run: the same in every figure and in the report."""
    return {arm: COLOURS[i % len(COLOURS)] for arm, i in arm_indices(arms).items()}


def arm_styles(arms: Sequence[str]) -> dict[str, Style]:
    """The style of each arm of a run; `arms` are all arms in the order of run.json, whichever are drawn.

    Arms with the same colour have different dashes, up to 48 arms.
    """
    colours = arm_colours(arms)
    return {
        arm: Style(colours[arm], DASHES[(i + i // len(COLOURS)) % len(DASHES)], MARKERS[i % len(MARKERS)])
        for arm, i in arm_indices(arms).items()
    }


def line(axes: Axes, x: Any, y: Any, arm: str, style: Style) -> None:
    """Draw one arm's curve with about ten markers; x and y are numbers, arrays or columns of a table."""
    axes.plot(x, y, label=arm, markersize=4, markevery=max(1, len(x) // 10), **style._asdict())


def grid(panels: int, width: float = 2.6, height: float = 2.4, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A figure with this number of panels of this size in inches, at most four in a row, and their axes."""
    columns = min(4, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns + 0.4, height * rows + 0.4), layout="constrained")
    cells = list(figure.subplots(rows, columns, squeeze=False, **subplots).flat)
    for axes in cells[panels:]:
        axes.set_visible(False)
    return figure, cells[:panels]


def plain(axes: Axes) -> None:
    """Give the axes a light grid, few ticks and no box."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.locator_params(axis="x", nbins=6)


def over_epochs(axes: Axes) -> None:
    """Make the axes plain, with epochs as integers on the x axis."""
    plain(axes)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))


def save(figure: Figure, path: Path, note: str = "") -> list[Path]:
    """Write `path`.png and `path`.pdf atomically, with a `note` below the panels; equal figures give equal bytes."""
    if note:
        width = max(20, int(LETTERS * figure.get_size_inches()[0]))
        figure.supxlabel("\n".join(textwrap.wrap(note, width)), fontsize="small", color="0.3")
    kinds: dict[str, dict[str, Any]] = {".png": {"dpi": 200}, ".pdf": {"metadata": {"CreationDate": None}}}
    written = []
    for kind, options in kinds.items():
        data = io.BytesIO()  # write_durably names the file in its error if the disk is full
        figure.savefig(data, format=kind[1:], **options)
        written.append(path.with_name(path.name + kind))
        write_durably(written[-1], data.getvalue())
    return written


def layer_sort_key(name: str) -> tuple[Any, ...]:
    """A sort key for names of layers: stem first; projector, h and z last; layers.2 before layers.10; a ResNet's bn1
    directly after its conv1.
    """
    parts = re.split(r"(\d+)", name.replace(".bn", ".conv"))
    first = name.removeprefix("encoder.").partition(".")[0]
    stem = STEM.index(first) if first in STEM else len(STEM)
    top = TOP.index(first) if first in TOP else -1
    return stem, top, [part.rjust(8, "0") if part.isdigit() else part for part in parts], ".bn" in name
