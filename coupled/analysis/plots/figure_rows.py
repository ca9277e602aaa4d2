"""What the figures of a run are drawn from: the rows of its tables, and which arm the others are compared with."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from coupled.analysis.plots.drawing import Style
from coupled.analysis.run import USUAL_REFERENCE, usual_reference
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import largest_sample, read_newest
from coupled.monitoring.terminal import say


class Run(NamedTuple):
    """What the figures of a run share."""

    folder: Path  # the tables
    reference: str
    styles: dict[str, Style]
    twins: list[str]

    def gaps(self) -> pd.DataFrame:
        """Rows of weight_gap.csv about the reference."""
        return self._about_reference("weight_gap.csv", "gap")

    def scores(self) -> pd.DataFrame:
        """Rows of test_alignment.csv about the reference, of the largest sample for each metric."""
        return largest_sample(self._about_reference("test_alignment.csv", "value"), by="metric")

    def read(self, name: str, value: str) -> pd.DataFrame:
        """The newest rows of a table. Raises ValueError if it is not there, BadTableError."""
        if "reference" in SCHEMAS[name].key and len(self.styles) < 2:
            raise ValueError("the run has one arm, and nothing to compare it with")
        return finite(read_newest(self.folder / name, value, arms=list(self.styles)), value)

    def _about_reference(self, name: str, value: str) -> pd.DataFrame:
        rows = self.read(name, value)
        rows = rows[rows["reference"] == self.reference]
        if rows.empty:
            raise ValueError(f"{self.folder / name}: no rows with the reference '{self.reference}'")
        return rows

    def arms(self, rows: pd.DataFrame) -> list[str]:
        """The arms in `rows`, in the order of the run, without twins."""
        there = set(rows["arm"])
        return [arm for arm in self.styles if arm in there and arm not in self.twins]


def finite(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """The rows with a missing value for one that no axis has."""
    return rows.assign(**{value: rows[value].where(np.isfinite(rows[value]))}) if len(rows) else rows


def reference_of(folder: Path, arms: Sequence[str]) -> str:
    """The reference where none is asked for: `cl`, or in a run without it that of its tables, which is said."""
    usual = usual_reference(arms)
    if usual == USUAL_REFERENCE:
        return usual
    for path in (folder / "weight_gap.csv", folder / "test_alignment.csv"):
        with contextlib.suppress(ValueError):  # said of the figure that needs it
            usual = str(next(iter(read_newest(path, arms=arms)["reference"].drop_duplicates(keep="last")), usual))
            break
    say(f"reference: {usual} (the run has no arm '{USUAL_REFERENCE}'; --reference ARM chooses another)")
    return usual
