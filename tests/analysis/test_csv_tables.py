"""Reading tables: a wrong cell, row or file is reported in one line with file, row and column."""

import csv
import errno
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coupled.analysis import bounds
from coupled.analysis.cells import NAME, Cells
from coupled.analysis.report.tables import read_tables
from coupled.analysis.schemas import COLUMNS, SCHEMAS
from coupled.analysis.tables import BadTableError, newest, read_newest, read_table
from coupled.analysis.theory.bounds_of_tables import few_shot_rows

ARMS = ["cl", "nscl"]
GOOD = {"arm": "nscl", "reference": "cl", "direct_arm": "cl", "split": "test", "epoch": "1", "last_epoch": "1"}
HARMFUL = {  # what a cell may hold -> what it may not
    "a name": ["", "nan arm"],
    "a whole number": ["1e18", "", "text", "nan", "inf", "-1", "1.5", "9" * 400, "True"],
    "a finite number": ["text", "inf", "-1", "True", "1e999", "1,5"],
    "a number": ["text", "True", "<!--<script>", "0x10"],
}


def cells_of(name: str, column: str) -> Cells:
    return {**COLUMNS, **SCHEMAS[name].others}[column].cells


def good(name: str, column: str) -> str:
    if column == "split":
        return "train" if name.startswith("train") else "test"
    return GOOD.get(column, "name" if cells_of(name, column).least is None else "1")


def harmful(name: str, column: str) -> list[str]:
    """Return cells that are not allowed in this column."""
    kind = cells_of(name, column)
    found = next((cells for words, cells in HARMFUL.items() if kind.words.startswith(words)), [])
    if column in ("arm", "reference", "direct_arm"):
        return [*(found[:1] if not kind.empty else []), "zzz", "<!--<script>"]
    if kind == NAME:
        return ["", *(["elsewhere"] if column == "split" and name.startswith(("train", "test")) else [])]
    allowed = {"" if kind.empty else None, str(kind.least)}  # verify.csv has -1 for a run without snapshots
    return [each for each in found if each not in allowed]


def write(path: Path, columns: tuple[str, ...], *rows: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    return path


def test_every_invalid_cell_is_named_with_its_row(tmp_path: Path) -> None:
    """Every table, column by column, the wrong cell between good rows: one cell for every column, and every wrong cell
    for every kind of column.
    """
    checked, kinds = 0, set()
    for name, schema in SCHEMAS.items():
        columns = schema.columns
        path, row = tmp_path / name, [good(name, column) for column in columns]
        write(path, columns, row, row)
        assert len(read_table(path, columns, ARMS)) == 2
        for place, column in enumerate(columns):
            kind = cells_of(name, column)
            for number, cell in enumerate(harmful(name, column)):
                if number and (kind.words, kind.empty, kind.least, cell) in kinds:
                    continue
                kinds.add((kind.words, kind.empty, kind.least, cell))
                write(path, columns, row, [*row[:place], cell, *row[place + 1 :]], row)
                with pytest.raises(BadTableError) as caught:
                    read_table(path, columns, ARMS)
                assert str(caught.value).startswith(f"{path}: row 3: {column}: got '{cell[:60]}"), (name, column, cell)
                checked += 1
    assert checked > 150


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"epoch,lr\n1,2\n1,\0\n", "row 3: a NUL byte"),
        (b"epoch,lr\n1,2\n1,\xff\n", "row 3: not UTF-8 text"),
        ("epoch,lr\n1,2\n".encode("utf-16"), "row 1: not UTF-8 text"),
        (b"epoch,loss\n1,2\n", r"row 1: no column 'lr' \(columns: epoch, loss\)"),
        (b"epoch,lr,lr\n1,2,3\n", "row 1: the column 'lr' appears twice"),
        (b"epoch,lr\n1,2\n1\n1,2\n", "row 3: 1 cells, the header has 2"),
        (b"epoch,lr\n1,2,3\n", "row 2: 3 cells, the header has 2"),
        (b"epoch,lr\n1,2\n\n1,2\n", "row 3: 0 cells"),
        (b'epoch,lr\n1,"2\n1,2\n1,2\n', "row 2: "),
        (b"epoch,lr\n1," + b"2" * 200_000 + b"\n", r"row 2: not readable as CSV \(field larger than field limit"),
        (b"\n" * 9, "row 1: no column 'epoch'"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "steps.csv"
    path.write_bytes(content)
    with pytest.raises(BadTableError, match=rf"steps\.csv: {said}") as caught:
        read_table(path, ("epoch", "lr"))
    assert "\n" not in str(caught.value)


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of 4 GiB is refused by its size; an incomplete last row and an empty file are accepted."""
    path = tmp_path / "steps.csv"
    with path.open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(BadTableError, match=r"4,294,967,296 bytes long; a table has at most 2,147,483,648"):
        read_table(path)
    path.write_text("epoch,lr\n1,0.5\n1,0.")
    assert read_table(path, ("epoch", "lr")).to_dict("list") == {"epoch": [1], "lr": [0.5]}
    path.write_text("")
    assert read_table(path, ("epoch", "lr")).empty


def test_numbers_are_read_exactly_and_names_stay_text(tmp_path: Path) -> None:
    """An arm called NA is not missing, and 007 is not a number; an empty cell is missing."""
    numbers = ["0.1234567890123456789", "5e-324", "1.7976931348623157e308", "-0.3", "", "nan", "inf"]
    path = tmp_path / "quality.csv"
    write(path, ("arm", "value"), *[[arm, cell] for arm, cell in zip(["NA", "007", *"abcde"], numbers, strict=True)])
    table = read_table(path, ("arm", "value"))
    assert list(table["arm"][:2]) == ["NA", "007"]
    assert [repr(cell) for cell in table["value"]] == [repr(float(cell or "nan")) for cell in numbers]
    assert newest(table, path.name).equals(table)


@pytest.mark.parametrize(
    ("name", "cells", "ok"),
    [
        ("quality.csv", {"metric": "few_shot", "shots": "5"}, True),
        ("quality.csv", {"metric": "few_shot", "shots": ""}, False),
        ("quality.csv", {"metric": "few_shot_two_way", "shots": "0"}, False),
        ("collapse.csv", {"metric": "eigenvalue_share", "component": "12"}, True),
        ("collapse.csv", {"metric": "eigenvalue_share", "component": ""}, False),
        ("bounds.csv", {"bound": "proposition_1", "shots": "2e9"}, False),
        ("bounds.csv", {"bound": "a_priori", "shots": "", "reference": "cl"}, True),
    ],
)
def test_required_numbers_of_a_row_are_checked(tmp_path: Path, name: str, cells: dict[str, str], ok: bool) -> None:
    """The number of shots, and which eigenvalue it is."""
    column = "component" if "component" in cells else "shots"
    row = [cells.get(each, good(name, each)) for each in SCHEMAS[name].columns]
    write(tmp_path / "analysis" / name, SCHEMAS[name].columns, row)
    if ok:
        assert list(read_tables(tmp_path, ARMS)) == [name]
    else:
        with pytest.raises(BadTableError, match=rf"{name}: row 2: {column}: got '{cells[column]}'"):
            read_tables(tmp_path, ARMS)


@pytest.mark.parametrize("cell", ["-1", "inf", "1e308", "5e-324"])
def test_an_invalid_scatter_is_named(tmp_path: Path, cell: str) -> None:
    """It would lead to a division by 0 or to a meaningless bound."""
    columns = (
        "epoch",
        "split",
        "arm",
        "module",
        "metric",
        "variant",
        "shots",
        "k",
        "value",
        "num_images",
        "num_train_images",
    )
    about = ["1", "test", "cl", "h"]
    scatter = [[*about, metric, "one_class", "", "", "0.5", "9", "", "s", "i"] for metric in ("cdnv", "root_cdnv")]
    rows = [*scatter, [*about, "directional_cdnv", "one_class", "", "", cell, "9", "", "s", "i"]]
    path = write(tmp_path / "quality.csv", (*columns, "arm_digest", "images_digest"), *rows)
    with pytest.raises(BadTableError, match=r"quality\.csv: row 4: value: got .*, expected 0 or 1e-100 to 1e100"):
        few_shot_rows(path, 10)


def test_the_rates_of_a_damaged_steps_csv_are_refused(tmp_path: Path) -> None:
    """The a-priori bound grows with their sum: an empty cell would make it nan, reported as "vacuous"."""
    write(tmp_path / "steps.csv", ("epoch", "step", "lr"), ["1", "1", "0.5"], ["1", "2", ""])
    with pytest.raises(BadTableError, match=r"steps\.csv: row 3: lr: got '', expected a finite number of 0 or more"):
        bounds.read_rates(tmp_path)


def test_a_missing_table_names_a_command_that_writes_it(tmp_path: Path) -> None:
    """The command can be typed as printed."""
    path = tmp_path / "a run/analysis/quality.csv"
    said = rf"quality\.csv: no such file; write it with: coupled quality --run-dir '{tmp_path}/a run'"
    with pytest.raises(ValueError, match=said):
        read_newest(path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Unlike open, read raises an OSError without the file's name."""

    def fails(self: Path) -> Any:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "steps.csv"
    pd.DataFrame({"epoch": [1]}).to_csv(path, index=False)
    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        read_table(path)
    assert caught.value.filename == str(path)
