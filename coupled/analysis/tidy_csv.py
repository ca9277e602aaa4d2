"""Write CSV files: whole tables, and files that grow by complete rows, without duplicates."""

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path

import pandas as pd

from coupled.analysis.schemas import INTERVAL, SCHEMAS
from coupled.analysis.tables import BadTableError, checked_rows, read_text
from coupled.monitoring.terminal import say
from coupled.storage.atomic_files import append_durably, encoded, write_durably

RESAMPLES = "resamples"


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Replace the file `path` by the rows of `table`, without their index."""
    write_durably(path, encoded(table.to_csv(index=False, lineterminator="\n")))


class TidyCsv:
    """A CSV file in long format that is extended block by block; an existing row is never written again.

    Two rows are the same if they agree in the columns `key`. Floats are written in full, NaN as an empty cell. An
    incomplete last row is removed. Duplicate rows are removed with a message; of rows that differ only in their
    intervals, the last one with an interval is kept. Raises ValueError if the file has other columns, or two rows with
    the same key and different values.
    """

    def __init__(self, path: Path, columns: Sequence[str], key: Sequence[str]) -> None:
        self.path, self.columns = path, list(columns)
        self.places = [self.columns.index(name) for name in key]
        self.written = 0
        self.held: dict[tuple[str, ...], int] = {}  # hash of each row, by key
        self.resamples: dict[tuple[str, ...], str] = {}  # this cell of each row, by key
        whole = read_text(path) if path.exists() else ""
        size = path.stat().st_size if path.exists() else 0
        header = self._text([self.columns])
        if size and not whole and not header.encode().startswith(path.read_bytes()[: len(header)]):
            raise self._foreign()
        rows = self._rows(whole) if whole else []
        once = [row for row in self._best(rows) if self._is_new(row)]
        if len(once) < len(rows):
            say(f"{path}: removed duplicate rows: {len(rows) - len(once)}", sys.stderr)
            whole = self._text([self.columns, *once])
        if not whole or len(whole.encode()) != size:
            write_durably(path, encoded(whole or header))

    def _rows(self, text: str) -> list[list[str]]:
        """Return the rows below the header. Raises BadTableError for a file that is not this table."""
        rows = checked_rows(self.path, text)
        if next(rows) != self.columns:
            raise self._foreign()
        return list(rows)

    def _foreign(self) -> BadTableError:
        columns = ",".join(self.columns)
        return BadTableError(f"{self.path}: expected the columns {columns}; move the file away to start a new one")

    def _is_new(self, row: list[str]) -> bool:
        """Whether the row is the first of its key. Raises BadTableError if a row with that key has other values."""
        key = self._key(row)
        new = key not in self.held
        if not new and self.held[key] != hash(tuple(row)):
            raise BadTableError(
                f"{self.path}: two rows with the same key and different values: {', '.join(filter(None, key))}; delete"
                " the wrong one, or move the file away to start a new one"
            )
        self._hold(key, row)
        return new

    def _hold(self, key: tuple[str, ...], row: list[str]) -> None:
        self.held[key] = hash(tuple(row))
        if RESAMPLES in self.columns:
            self.resamples[key] = row[self.columns.index(RESAMPLES)]

    def _key(self, row: list[str]) -> tuple[str, ...]:
        return tuple(row[place] for place in self.places)

    def _best(self, rows: list[list[str]]) -> Iterable[list[str]]:
        """Of rows that differ only in their intervals, the last one with an interval."""
        if RESAMPLES not in self.columns:
            return rows
        best: dict[tuple[str, ...], list[str]] = {}
        outside = [place for place, column in enumerate(self.columns) if column not in INTERVAL]
        resamples = self.columns.index(RESAMPLES)
        for row in rows:
            same = tuple(row[place] for place in outside)
            older = best.pop(same, row)  # the last row of its key stays the newest
            best[same] = row if row[resamples] or not older[resamples] else older
        return best.values()

    def has(self, *key: object, resamples: int | None = None) -> bool:
        """Whether a row with these key cells is in the file; with `resamples`, with an interval from so many."""
        cells = tuple(map(str, key))
        return cells in self.held and (resamples is None or self.resamples.get(cells) == str(resamples))

    def append(self, rows: Iterable[Sequence[object]]) -> None:
        """Append the rows that are not in the file yet with one write, and sync them to disk."""
        new = [row for row in map(self._cells, rows) if self._key(row) not in self.held]
        append_durably(self.path, self._text([row for row in new if self._is_new(row)]))
        self.written += len(new)

    def renew(self, rows: Iterable[Sequence[object]]) -> None:
        """As `append`, but rows of the same key with other values are replaced: removed, and the new ones appended.

        The file is replaced by one rename, so a process that is killed leaves the old rows or the new ones.
        """
        cells = {self._key(row): row for row in map(self._cells, rows)}
        new = {key: row for key, row in cells.items() if self.held.get(key) != hash(tuple(row))}
        if new.keys().isdisjoint(self.held):
            self.append(new.values())
            return
        kept = [row for row in self._rows(read_text(self.path)) if self._key(row) not in new]
        write_durably(self.path, encoded(self._text([self.columns, *kept, *new.values()])))
        for key, row in new.items():
            self._hold(key, row)
        self.written += len(new)

    @staticmethod
    def _cells(row: Sequence[object]) -> list[str]:
        """Return the cells as text, as csv.writer formats them."""
        return ["" if cell is None or (isinstance(cell, float) and isnan(cell)) else str(cell) for cell in row]

    @staticmethod
    def _text(rows: Iterable[Sequence[str]]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()


def open_table(path: Path) -> TidyCsv:
    """Return the table at `path`, whose file name is one of the SCHEMAS."""
    schema = SCHEMAS[path.name]
    return TidyCsv(path, schema.columns, schema.key)
