"""report: the tables of further measures, those that were not computed, and the library of the page."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.report_parts import changed, copied, report_runs

from coupled.analysis.report.further_measures import MEASURES, measures
from coupled.analysis.report.missing import FURTHER, further_tables
from coupled.analysis.report.page_tables import Table, to_measure, without_empty_columns
from coupled.analysis.report.program import PAGE, PLOTLY, page, sections
from coupled.analysis.run import open_run
from coupled.analysis.schemas import COLUMNS, SCHEMAS

DIGEST = "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"  # SHA-256 of the file in npm's 4.1.1


def rows_of(name: str, arm: str, value: float | None, **more: Any) -> dict[str, Any]:
    """A valid row of a table in which all values are `value`."""
    row: dict[str, Any] = {}
    for column in SCHEMAS[name].columns:
        cells = {**COLUMNS, **SCHEMAS[name].others}[column].cells
        row[column] = "x" if cells.least is None else 64 if cells.whole else 0.5
    row |= {"epoch": 3, "split": "test", "arm": arm, "reference": "cl", "severity": 1, "bin": 1, "value": value}
    return {
        column: each
        for column, each in (row | dict.fromkeys(measure(name).values, value) | more).items()
        if column in row and column in SCHEMAS[name].columns
    }


def measure(name: str) -> Any:
    return next(each for each in MEASURES if each.name == name)


def with_tables(run: Path, name: str, rows: list[dict[str, Any]]) -> Table:
    pd.DataFrame(rows).to_csv(run / "analysis" / name, index=False)
    (table,) = (each for each in measures(report_runs(run)) if each.rows)
    return without_empty_columns(table)


@pytest.mark.parametrize("name", [each.name for each in MEASURES])
def test_each_measure_has_a_column_for_each_arm(measured_run: Path, tmp_path: Path, name: str) -> None:
    """Last epoch and largest sample only, without rows that have no value; equal settings are in the caption."""
    run = copied(measured_run, tmp_path / "run")
    varied = next(
        each for each in ("corruption", "label", "metric", "task", "module", "loss") if each in SCHEMAS[name].columns
    )
    table = with_tables(
        run,
        name,
        [
            *(rows_of(name, arm, 0.9, epoch=0) for arm in ("cl", "scl")),
            *(rows_of(name, arm, value) for arm, value in (("scl", 0.25), ("cl", 0.125))),
            rows_of(name, "cl", 0.7, num_images=8),
            rows_of(name, "cl", 0.375, **{varied: "y"}),
            rows_of(name, "cl", None, **{varied: "empty"}),
        ],
    )
    values = measure(name).values
    heads = [f"{arm} {each}" for arm in ("cl", "scl") for each in values] if len(values) > 1 else ["cl", "scl"]
    assert table.columns == [varied, *heads]
    assert table.arms == ["", *["cl"] * len(values), *["scl"] * len(values)]
    cells = [[each.text for each in row] for row in table.rows]
    expected = {
        "x": ["0.125"] * len(values) + ["0.25"] * len(values),
        "y": ["0.375"] * len(values) + [""] * len(values),
    }
    assert {row[0]: row[1:] for row in cells} == expected
    assert "Epoch 3; " in table.caption
    assert "num_images" not in table.caption


def test_measures_of_several_runs_are_rows_of_one_table(measured_run: Path, tmp_path: Path) -> None:
    """Side by side, so that two runs can be compared."""
    first, second = (copied(measured_run, tmp_path / name) for name in ("one", "two"))
    for run, value in ((first, 0.25), (second, 0.5)):
        pd.DataFrame([rows_of("pretext.csv", "cl", value)]).to_csv(run / "analysis/pretext.csv", index=False)
    (table,) = (each for each in measures(report_runs(first, second)) if each.rows)
    assert [[cell.text for cell in row] for row in table.rows] == [["one", "0.25"], ["two", "0.5"]]


def test_further_measures_are_listed_until_they_exist(measured_run: Path, tmp_path: Path) -> None:
    """With a command for each program that can work on the run; --compute does not run them."""
    names = [name for tables in FURTHER.values() for name in tables]
    assert {each.name for each in MEASURES} == {*names}
    run = copied(measured_run, tmp_path / "run")
    (read,) = report_runs(run)
    assert [each.table for each in further_tables(read)] == names
    commands = [row[3].value for row in to_measure([changed(read, path=Path("r"))]).rows]
    assert commands == [f"coupled {program.replace('_', '-')} --run-dir r" for program in FURTHER]
    unlabelled = {**read.run.description, "dataset": {"name": "x", "classes": []}}
    assert further_tables(changed(read, description=unlabelled)) == []
    for name in names:
        pd.DataFrame([rows_of(name, "cl", 0.5)]).to_csv(run / "analysis" / name, index=False)
    (read,) = report_runs(run)
    assert further_tables(read) == []
    titles = {part.title for each in sections([read]) for part in each["parts"] if each["key"] == "measures"}
    assert titles == {each.title for each in MEASURES}


def test_plotly_on_the_page_is_the_file_of_npm() -> None:
    """A changed or corrupted file would run in the browser of every reader. `program.py` says how to renew it."""
    data = (PAGE / PLOTLY).read_bytes()
    assert hashlib.sha256(data).hexdigest() == DIGEST
    assert re.match(rb"/\*\*\n\* plotly.js \(cartesian - minified\) v4\.1\.1\n", data)
    assert b"</script" not in data
    assert "Plotly Technologies Inc." in (PAGE / "plotly-LICENSE.txt").read_text()


def test_the_page_of_a_run_is_below_three_megabytes(measured_run: Path) -> None:
    """It had 5 MB with all of plotly.js, most of it never used."""
    assert len(page([open_run(measured_run)]).encode()) < 3e6
