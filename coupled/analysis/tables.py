"""Read CSV tables and check every cell. An error names file, row and column.

Row 1 is the header, as in a spreadsheet. An incomplete last row is being written and is ignored.
"""

import csv
import io
import re
from collections.abc import Collection, Hashable, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_integer_dtype

from coupled.analysis.cells import NUMBER, Cells, Column
from coupled.analysis.schemas import COLUMNS, SCHEMAS

LARGEST = 2**31  # bytes of a table; reading a larger one takes minutes and a lot of memory


class BadTableError(ValueError):
    """A table exists but is not valid; the message names file, row and column."""


REQUIRED = {  # metric or bound -> a column that its rows must fill
    **dict.fromkeys(("few_shot", "few_shot_two_way", "proposition_1", "documented_form"), "shots"),
    **dict.fromkeys(("eigenvalue_share", "eigenvalue", "correlation_eigenvalue"), "component"),
    **dict.fromkeys(("predictor_singular_value", "eigenspace_alignment", "predictor_along"), "component"),
    "exponential_shape": "fit_epochs",
}


def read_table(path: Path, needed: Sequence[str] = (), arms: Collection[str] = ()) -> pd.DataFrame:
    """Return the rows of a table, after checks that it has the columns `needed` and, with `arms`, only these arms.

    An empty file has no rows; an empty cell is NaN. Raises BadTableError; OSError for an unreadable file.
    """
    text = read_text(path)
    if not text:
        return pd.DataFrame()
    header = next(checked_rows(path, text))
    for name in header:
        if header.count(name) > 1:
            raise BadTableError(f"{path}: row 1: the column '{name}' appears twice; {RESTORE}")
    if missing := [name for name in needed if name not in header]:
        raise BadTableError(f"{path}: row 1: no column '{missing[0]}' (columns: {', '.join(header)}); {RESTORE}")
    for _ in checked_rows(path, text):
        pass
    known = {**COLUMNS, **(SCHEMAS[path.name].others if path.name in SCHEMAS else {})}
    known = dict.fromkeys(needed, Column("", NUMBER)) | known
    kinds = {name: known[name].cells for name in header if name in known}
    empty: dict[str, list[str]] = {name: [""] for name in header}
    types: dict[Hashable, type] = dict.fromkeys(kinds, str)
    try:
        table = pd.read_csv(io.StringIO(text), keep_default_na=False, low_memory=False, dtype=types, na_values=empty)
    except (ValueError, OverflowError) as error:  # pandas' ParserError is a ValueError
        raise BadTableError(f"{path}: not readable as a table ({' '.join(str(error).split())}); {RESTORE}") from None
    for name, kind in kinds.items():
        table[name] = _checked_column(path, table[name], kind, name in needed)
    for name in ("arm", "reference", "direct_arm"):
        if arms and name in table:
            wrong = table[name].notna() & ~table[name].isin(list(arms))
            _refuse(path, table[name], wrong, f"an arm of the run ({', '.join(arms)})")
    split = path.name.partition("_")[0]
    if split in ("train", "test") and "split" in table:
        _refuse(path, table["split"], table["split"] != split, f"'{split}', the split of this table")
    for name in {"metric", "bound"} & {*table}:
        for each in {*table[name]} & REQUIRED.keys():
            if (column := REQUIRED[each]) in table:
                wrong = (table[name] == each) & table[column].isna()
                _refuse(path, table[column], wrong, f"{COLUMNS[column].cells.words}, which '{each}' needs")
    return table


RESTORE = "repair the file, or move it away and run the program that writes it again"


def read_text(path: Path) -> str:
    """Return the complete rows of a CSV as text. Raises BadTableError for a file that is too large or not text."""
    if (size := path.stat().st_size) > LARGEST:
        raise BadTableError(f"{path}: {size:,} bytes long; a table has at most {LARGEST:,}")
    try:
        data = path.read_bytes()
    except OSError as error:  # the error of a read does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from None
    data = data[: data.rfind(b"\n") + 1]
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise BadTableError(f"{path}: row {row}: not UTF-8 text ({error.reason}); {RESTORE}") from None
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        raise BadTableError(f"{path}: row {row}: a NUL byte, which is not allowed in text; {RESTORE}")
    return text


def checked_rows(path: Path, text: str) -> Any:
    """Yield the rows of a CSV, header first. Raises BadTableError for a row of another length."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)  # strict: an unclosed quote is an error
    length = None
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            length = length or len(row)
            if len(row) != length:
                raise BadTableError(f"{path}: row {number}: {len(row)} cells, the header has {length}; {RESTORE}")
            yield row
    except csv.Error as error:
        raise BadTableError(f"{path}: row {number + 1}: not readable as CSV ({error}); {RESTORE}") from None


def _checked_column(path: Path, cells: "pd.Series[Any]", kind: Cells, needed: bool) -> "pd.Series[Any]":
    """Return the cells, as numbers unless the kind is text. Raises BadTableError, which names the first wrong cell."""
    empty = cells.isna().to_numpy()
    if needed and not kind.empty:
        _refuse(path, cells, empty, kind.words)
    if kind.least is None:
        return cells
    undefined = (cells == "nan").to_numpy(bool)
    numbers = pd.to_numeric(cells.mask(undefined) if undefined.any() else cells, errors="coerce")
    values = numbers.to_numpy()  # numpy's operations on few values take a fraction of the time of pandas'
    missing = numbers.isna().to_numpy()
    wrong = missing & ~empty & (~undefined | kind.whole)
    wrong |= (values < kind.least) | (values > kind.most)
    with np.errstate(invalid="ignore"):  # inf % 1
        wrong |= (values % 1 != 0) & ~missing if kind.whole else False
    wrong |= missing if needed and not kind.empty else False
    _refuse(path, cells, wrong, kind.words)
    if kind.whole or is_integer_dtype(numbers):
        return numbers
    exact = cells.fillna("nan").to_numpy(object).astype(float)  # exact to the last bit, unlike pandas before version 4
    return pd.Series(exact, index=cells.index, name=cells.name)


def _refuse(path: Path, column: "pd.Series[Any]", wrong: Any, allowed: str) -> None:
    """Raise BadTableError, which names the first cell that is `wrong`, an array or a Series of booleans."""
    if (found_wrong := np.asarray(wrong, bool)).any():
        place = int(found_wrong.argmax())
        found = column.iloc[place]
        cell = "" if pd.isna(found) else re.sub(r"(.{60}).+", r"\1...", str(found))
        raise BadTableError(f"{path}: row {place + 2}: {column.name}: got '{cell}', expected {allowed}; {RESTORE}")


def read_newest(path: Path, *more: str, arms: Collection[str] = ()) -> pd.DataFrame:
    """Return the newest rows of one of the SCHEMAS: of rows with the same `place` columns, the last one.

    Checks the `place` columns and `more`. Raises ValueError if there is no such file, BadTableError if it is damaged.
    """
    schema = SCHEMAS[path.name]
    if not path.exists():
        from coupled.analysis.driver import typed_command  # the driver imports this module

        raise ValueError(f"{path}: no such file; write it with: {typed_command(schema.program, path.parent.parent)}")
    table = read_table(path, (*schema.place, *more), arms)
    return newest(table, path.name) if len(table) else pd.DataFrame(columns=list(schema.columns))


def as_frame(rows: Sequence[Sequence[object]], name: str) -> pd.DataFrame:
    """Return rows of table `name` as `read_table` would: numbers as numbers, NaN for an empty cell."""
    columns = SCHEMAS[name].columns
    by_column = zip(*rows, strict=True) if rows else [()] * len(columns)
    return pd.DataFrame(
        {column: _typed(cells, _kind(name, column)) for column, cells in zip(columns, by_column, strict=True)}
    )


def _kind(name: str, column: str) -> Cells:
    return {**COLUMNS, **SCHEMAS[name].others}[column].cells


def _typed(cells: Sequence[object], kind: Cells) -> "pd.Series[Any]":
    known = [None if cell is None or cell == "" else cell for cell in cells]
    if kind.least is None:
        return pd.Series(known, dtype="str")
    whole = all(isinstance(cell, int) for cell in known)
    return pd.Series([nan if cell is None else cell for cell in known], dtype="int64" if whole else "float64")


def newest(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the last of the rows of table `name` that differ at most in their digests."""
    return rows.drop_duplicates([column for column in SCHEMAS[name].place if column in rows], keep="last")


def largest_sample(rows: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """Return the rows with the most images and train images, for each value of `by`; others are rougher estimates."""
    for column in ("num_images", "num_train_images"):
        if column in rows:
            counts = rows[column]
            most = counts.groupby(rows[by]).transform("max") if by else counts.max()
            rows = rows[counts.isna() | (counts == most)]
    return rows


def whole_encoder(rows: pd.DataFrame, aggregate: str) -> pd.DataFrame:
    """Return the rows of weight_gap.csv over the whole encoder; `aggregate` is `mean`, `sum` or `global`."""
    return rows[(rows["aggregate"] == aggregate) & rows["module"].isna()]
