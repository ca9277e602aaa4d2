"""The input of the figures of a run: the rows of its tables, the reference arm, and the style of each arm."""

import contextlib
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from coupled.analysis.run import USUAL_REFERENCE, Run, usual_reference
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.selection import no_arm
from coupled.analysis.selections.looks import Looks, twins_of
from coupled.analysis.selections.seeds import average
from coupled.analysis.selections.styles import Style, arm_styles
from coupled.analysis.tables import largest_sample, read_newest
from coupled.config.arm_sections import not_shared_text
from coupled.config.controls import twins

MOST_COLUMNS = 6  # of a legend
FONT = 10.0  # points: size of the labels of a legend
HANDLE = 6.8  # font sizes: line of an entry of a legend and the gaps before and after it
ROW = 0.2  # inches: height of a row of a legend
LETTERS = 13  # of a small title, in an inch


MAIN = {  # the column that a figure needs, if it is not `value`
    **dict.fromkeys(("weight_gap.csv", "loss_gap.csv"), "gap"),
    "nscl_reached.csv": "excess",
    "epochs.csv": "loss",
    "reliability.csv": "accuracy",
}


class FigureTables(NamedTuple):
    """The folder of a run's tables, the reference arm, and the style of each arm."""

    folder: Path  # of the tables
    reference: str
    styles: dict[str, Style]  # of every arm, in the order of the run
    twins: list[str]  # of the reference
    note: str = ""  # on every figure: the settings that the arms do not share
    arm_settings: Mapping[str, Mapping[str, Any]] = MappingProxyType({})  # of every arm, as in run.json
    name: str = ""  # in labels
    members: tuple["FigureTables", ...] = ()  # the runs of one experiment, which differ only in their seeds
    experiments: tuple["FigureTables", ...] = ()  # several experiments, which some figures show side by side

    @property
    def seeds(self) -> int:
        """The number of runs, of which the figures show the mean."""
        return max(1, len(self.members))

    @property
    def arm_names(self) -> list[str]:
        """All arms, in the order of the run."""
        return list(self.styles)

    def twins_of(self, reference: str) -> list[str]:
        """The twins of this reference; of "": all twins of earlier arms."""
        known = twins_of(self.arm_settings, reference) if self.arm_settings else []
        return known or (self.twins if reference in ("", self.reference) else [])

    @property
    def sources(self) -> "Sequence[FigureTables]":
        """The experiments, which `selections` reads."""
        return self.experiments or (self,)

    @property
    def each_seed(self) -> "Sequence[FigureTables]":
        """The tables of the single runs of one experiment."""
        return self.members or (self,)

    @property
    def runs(self) -> "list[FigureTables]":
        """The tables of each run."""
        return [run for each in self.sources for run in each.each_seed]

    @property
    def looks(self) -> Looks:
        """Labels and styles of all series."""
        return Looks(self.sources)

    def table(self, name: str) -> pd.DataFrame:
        """The newest rows of a table, of this reference if it compares arms. Raises ValueError if there are none."""
        value = MAIN.get(name, "value")
        return self._of_reference(name, value) if "reference" in SCHEMAS[name].key else self.read(name, value)

    def gaps(self, value: str = "gap") -> pd.DataFrame:
        """Rows of weight_gap.csv with this reference; `value` is the column that the figure shows."""
        return self._of_reference("weight_gap.csv", value)

    def scores(self) -> pd.DataFrame:
        """Rows of test_alignment.csv with this reference, of the largest sample for each metric."""
        return largest_sample(self._of_reference("test_alignment.csv", "value"), by="metric")

    def read(self, name: str, value: str) -> pd.DataFrame:
        """The newest rows of the table `name`, with NaN for values that are not finite.

        Raises ValueError if the table does not exist, or if it compares arms and the run has only one arm;
        BadTableError if it is damaged.
        """
        if self.experiments:
            raise ValueError(f"the figure shows one experiment; got {len(self.experiments)}")
        if self.members:
            every = [member.read(name, value) for member in self.members]
            if (rows := average(every, name)).empty:
                raise ValueError(f"{self.folder / name}: no rows that all {len(every)} runs have")
            return rows
        if "reference" in SCHEMAS[name].key and len(self.styles) < 2:
            raise ValueError("the run has one arm; this figure compares two or more arms")
        rows = read_newest(self.folder / name, value, arms=list(self.styles))
        return rows.assign(**{value: rows[value].where(np.isfinite(rows[value]))}) if len(rows) else rows

    def _of_reference(self, name: str, value: str) -> pd.DataFrame:
        """The rows of a table with this reference. Raises ValueError if there are none."""
        rows = self.read(name, value)
        rows = rows[rows["reference"] == self.reference]
        if rows.empty:
            raise ValueError(f"{self.folder / name}: no rows with the reference '{self.reference}'")
        return rows

    def arms(self, rows: pd.DataFrame) -> list[str]:
        """The arms in `rows`, in the order of the run, without the reference's twins."""
        present = set(rows["arm"])
        return [arm for arm in self.styles if arm in present and arm not in self.twins]


def figure_tables(run: Run, reference: str | None = None) -> FigureTables:
    """The tables of a run; the default of `reference` is `default_reference(run)`.

    Raises ValueError if the reference is not an arm of the run.
    """
    arms, folder = run.description["settings"]["arms"], run.path / "analysis"
    reference = reference or default_reference(run)
    if reference not in arms:
        raise ValueError(f"reference: {no_arm(reference, list(arms))}")
    note = not_shared_text(run.description["settings"])
    return FigureTables(folder, reference, arm_styles(list(arms)), twins(arms, reference), note, arms)


def default_reference(run: Run) -> str:
    """`cl`; in a run without `cl`, the reference in its tables; without tables, its first arm."""
    arms = list(run.settings.arms)
    usual = usual_reference(arms)
    if usual != USUAL_REFERENCE:
        for name in ("weight_gap.csv", "test_alignment.csv"):
            with contextlib.suppress(ValueError):  # the figure that needs the table reports it
                references = read_newest(run.path / "analysis" / name, arms=arms)["reference"]
                return str(next(iter(references.drop_duplicates(keep="last")), usual))
    return usual


def add_legend(figure: Figure, tables: FigureTables, title: str) -> None:
    """Add one legend for all panels above them, arms first, in as many columns as fit; the figure grows by its rows.

    The title says how many images and seeds the figure shows.
    """
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    looks = tables.looks
    arms = {
        label
        for each in tables.sources
        for arm in each.arm_names
        for label in (arm, *(looks.label(each, arm, band=band) for band in (False, True)))
    }
    labels = sorted(handles, key=lambda label: label not in arms)
    width, height = figure.get_size_inches()
    columns = next((count for count in range(MOST_COLUMNS, 1, -1) if _legend_width(labels, count) <= width), 1)
    lines = textwrap.wrap(title, int(width * LETTERS))
    figure.set_size_inches(width, height + ROW * (-(-len(labels) // columns) - 1 + len(lines)))
    style: dict[str, Any] = {"ncols": columns, "frameon": False, "handlelength": 3.5, "fontsize": FONT}
    style |= {"title": "\n".join(lines) or None, "title_fontsize": "small"}
    figure.legend([handles[label] for label in labels], labels, loc="outside upper center", **style)


def _legend_width(labels: Sequence[str], columns: int) -> float:
    """The width in inches of a legend, whose columns have equally many entries, the first ones one more."""
    widths = [TextPath((0, 0), label, size=FONT).get_extents().width for label in labels]
    filled = [each.max() for each in np.array_split(widths, columns) if len(each)]
    return float(sum(filled) + len(filled) * HANDLE * FONT) / 72
