"""The values that are allowed in the cells of a CSV column."""

from math import inf
from typing import NamedTuple

LAST_EPOCH = 10**6


class Cells(NamedTuple):
    """The values that are allowed in a column; `words` describes them. Without limits a cell is text."""

    words: str
    least: float | None = None
    most: float = inf
    whole: bool = False
    empty: bool = True


TEXT, NAME = Cells("text"), Cells("a name", empty=False)
NUMBER = Cells("a number", -inf)
SIZE = Cells("a finite number of 0 or more", 0, 1.7e308)
POSITIVE = Cells("a finite number above 0", 5e-324, 1.7e308, empty=False)
COUNT = Cells("a whole number from 0 to 10^15", 0, 10**15, whole=True)
ORDINAL = Cells("a whole number from 1 to 10^9", 1, 10**9, whole=True)
EPOCH = Cells(f"a whole number from 0 to {LAST_EPOCH:,}", 0, LAST_EPOCH, whole=True, empty=False)


class Column(NamedTuple):
    """One column: its description, the allowed values, and the unit of a number."""

    text: str
    cells: Cells = NUMBER
    unit: str = ""
