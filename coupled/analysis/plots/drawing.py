"""The form of every figure: grids of panels, plain axes, PNG and PDF."""

import io
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coupled.analysis.selections.styles import Style
from coupled.storage.atomic_files import write_durably

LETTERS = 12  # of a note, in an inch


def line(axes: Axes, x: Any, y: Any, arm: str, style: Style) -> None:
    """Draw one arm's curve with about ten markers; x and y are numbers, arrays or columns of a table."""
    axes.plot(x, y, label=arm, markersize=4, markevery=max(1, len(x) // 10), **style._asdict())


def grid(panels: int, width: float = 2.6, height: float = 2.4, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A figure with this number of panels of this size in inches, and their axes.

    A row has at most four panels; all rows but the last one have equally many: five are three and two.
    """
    rows = -(-panels // 4)
    columns = -(-panels // rows)
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
