"""CSV tables as they are read: a cell that cannot be what its column says is refused, with file, row and column.

The first row is the header, as a spreadsheet counts. A last row without its end is being written, and is left out.
"""

import csv
import io
import re
from collections.abc import Collection, Hashable, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pandas.api.types import is_integer_dtype

from coupled.analysis.driver import typed_command

LARGEST = 2**31  # bytes of a table; beyond, reading it takes minutes and more memory than most machines have
LAST_EPOCH = 10**6


WRITERS = {  # table -> program
    "weight_gap.csv": "weight_gap",
    **dict.fromkeys(("train_alignment.csv", "test_alignment.csv"), "alignment"),
    **{f"{name}.csv": name for name in ("quality", "collapse", "losses", "bounds")},
}


class BadTableError(ValueError):
    """A table that is there and cannot be read; the message says file, row and column."""


class Kind(NamedTuple):
    """What the cells of a column may hold; `words` say it. Text if there are no limits."""

    words: str
    least: float | None = None
    most: float = inf
    whole: bool = False
    empty: bool = True


TEXT, NAME = Kind("text"), Kind("a name", empty=False)
NUMBER = Kind("a number", -inf)
SIZE = Kind("a finite number of 0 or more", 0, 1.7e308)
POSITIVE = Kind("a finite number above 0", 5e-324, 1.7e308, empty=False)
COUNT = Kind("a whole number from 0 to 10^15", 0, 10**15, whole=True)
EPOCH = Kind(f"a whole number from 0 to {LAST_EPOCH:,}", 0, LAST_EPOCH, whole=True, empty=False)
KINDS = {  # of the columns of all tables; another column is a number where a reader needs it, else not looked at
    **dict.fromkeys(("epoch", "last_epoch"), EPOCH),
    **dict.fromkeys(("step", "train_samples", "batch", "bootstrap", "epochs", "points"), COUNT),
    "samples": COUNT._replace(empty=False),
    **dict.fromkeys(("arm", "reference", "direct_arm", "layer", "reference_layer", "split"), NAME),
    **dict.fromkeys(("metric", "loss", "bound", "of", "model"), NAME),
    **dict.fromkeys(("kind", "detail", "better", "vacuous", "holds", "collapsed", "finding"), TEXT),
    **dict.fromkeys(("reference_snapshot", "arm_snapshot", "snapshot", "images", "train_images"), TEXT),
    **dict.fromkeys(("gap", "distance", "seconds", "images_per_second", "spread"), SIZE),
    "lr": SIZE._replace(empty=False),
    **dict.fromkeys(("low", "high", "value", "measured"), NUMBER),
    "temperature": POSITIVE,
}
OTHER_KINDS = {  # where a table has another kind of cells under the name
    "bounds.csv": {"reference": TEXT, "split": TEXT},
    "loss_gap.csv": {"gap": NUMBER, "bound": NUMBER},
    "epochs.csv": {"loss": NUMBER},
    "verify.csv": {"last_epoch": EPOCH._replace(words="a whole number of -1 or more", least=-1)},
}
SHOTS, PLACE = r".+ m=[1-9]\d{0,8}", r"\d{1,9}"
DETAILS = {  # metric or bound -> how its `detail` is written
    **dict.fromkeys(("few_shot", "few_shot_two_way", "proposition_1", "documented_form"), SHOTS),
    **dict.fromkeys(("eigenvalue_share", "eigenvalue", "correlation_eigenvalue"), PLACE),
    **dict.fromkeys(("predictor_singular_value", "eigenspace_alignment", "predictor_along"), PLACE),
}


def read_table(path: Path, needed: Sequence[str] = (), arms: Collection[str] = ()) -> pd.DataFrame:
    """The rows of a table that has the columns `needed`, in which arms are among `arms`, if any are given.

    An empty file has no rows, an empty cell is missing (NaN). Raises BadTableError; OSError for an unreadable file.
    """
    text = read_text(path)
    if not text:
        return pd.DataFrame()
    header = next(checked_rows(path, text))
    for name in header:
        if header.count(name) > 1:
            raise BadTableError(f"{path}: row 1: the column '{name}' stands twice; {RESTORE}")
    if missing := [name for name in needed if name not in header]:
        raise BadTableError(f"{path}: row 1: no column '{missing[0]}' (columns: {', '.join(header)}); {RESTORE}")
    for _ in checked_rows(path, text):
        pass
    known = KINDS | dict.fromkeys((name for name in needed if name not in KINDS), NUMBER)
    known |= OTHER_KINDS.get(path.name, {})
    kinds = {name: known[name] for name in header if name in known}
    empty: dict[str, list[str]] = {name: [""] for name in header}
    types: dict[Hashable, type] = dict.fromkeys(kinds, str)
    try:
        table = pd.read_csv(io.StringIO(text), keep_default_na=False, low_memory=False, dtype=types, na_values=empty)
    except (ValueError, OverflowError) as error:  # of the former the parser's errors are
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
    for name in ("metric", "bound"):
        for each in set(table[name]) & DETAILS.keys() if name in table and "detail" in table else ():
            wrong = (table[name] == each) & ~table["detail"].fillna("").astype(str).str.fullmatch(DETAILS[each])
            _refuse(path, table["detail"], wrong, f"what '{each}' is called by, such as 'nccc m=5' or '1'")
    return table


RESTORE = "mend it, or move the file away to have it written anew"


def read_text(path: Path) -> str:
    """The whole rows of a CSV as text. Raises BadTableError for a file that is too large or not text."""
    if (size := path.stat().st_size) > LARGEST:
        raise BadTableError(f"{path}: {size:,} bytes long; a table has at most {LARGEST:,}")
    try:
        data = path.read_bytes()
    except OSError as error:  # a read, unlike an open, does not say of which file
        raise OSError(error.errno, error.strerror, str(path)) from None
    data = data[: data.rfind(b"\n") + 1]
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise BadTableError(f"{path}: row {row}: not UTF-8 text ({error.reason}); {RESTORE}") from None
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        raise BadTableError(f"{path}: row {row}: a NUL byte, which no text has; {RESTORE}")
    return text


def checked_rows(path: Path, text: str) -> Any:
    """The rows of a CSV one by one, the header first. Raises BadTableError for one of another length."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)  # a quote that is not closed
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


def _checked_column(path: Path, cells: "pd.Series[Any]", kind: Kind, needed: bool) -> "pd.Series[Any]":
    """The cells, as numbers unless the kind is text. Raises BadTableError that names the first of another kind."""
    empty = cells.isna()
    if needed and not kind.empty:
        _refuse(path, cells, empty, kind.words)
    if kind.least is None:
        return cells
    numbers = pd.to_numeric(cells.where(cells != "nan"), errors="coerce")
    _refuse(path, cells, numbers.isna() & ~empty & (cells != "nan"), kind.words)
    wrong = (numbers < kind.least) | (numbers > kind.most)
    wrong |= (numbers % 1 != 0) & numbers.notna() if kind.whole else False
    wrong |= numbers.isna() if needed and not kind.empty else False
    _refuse(path, cells, wrong, kind.words)
    if kind.whole or is_integer_dtype(numbers):
        return numbers
    exact = cells.fillna("nan").to_numpy(object).astype(float)  # to the last bit, unlike pandas below version 4
    return pd.Series(exact, index=cells.index, name=cells.name)


def _refuse(path: Path, column: "pd.Series[Any]", wrong: "pd.Series[bool]", allowed: str) -> None:
    if wrong.any():
        place = int(wrong.to_numpy().argmax())
        found = column.iloc[place]
        cell = "" if pd.isna(found) else re.sub(r"(.{60}).+", r"\1...", str(found))
        raise BadTableError(f"{path}: row {place + 2}: {column.name}: got '{cell}', expected {allowed}; {RESTORE}")


def read_newest(path: Path, key: Sequence[str], *more: str, arms: Collection[str] = ()) -> pd.DataFrame:
    """The rows of a table with the columns `key` and `more`; of those that agree in `key` the last, which is of the
    newest snapshots.

    Raises ValueError if there is no such file, BadTableError.
    """
    if not path.exists():
        command = typed_command(WRITERS.get(path.name, "report"), path.parent.parent)
        raise ValueError(f"{path}: no such file; write it with: {command}")
    table = read_table(path, (*key, *more), arms)
    if table.empty:
        return pd.DataFrame(columns=[*key, *more])
    return table.drop_duplicates(list(key), keep="last")
