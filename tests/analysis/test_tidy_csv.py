"""Growing tables: every row is written once and completely, whatever happened to the file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupled.analysis.tables import BadTableError
from coupled.analysis.tidy_csv import TidyCsv


@given(cut=st.integers(0, 60))
def test_a_file_truncated_anywhere_is_completed_to_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    """Truncated at any byte, as by a power cut."""
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    rows = [(0, "nscl", 0.1), (0, "scl", float("nan")), (1, "nscl", 1e-17), (1, "scl", 2.0)]
    TidyCsv(path, ("epoch", "arm", "value"), ("epoch", "arm")).append(rows)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    again = TidyCsv(path, ("epoch", "arm", "value"), ("epoch", "arm"))
    again.append(rows)
    assert path.read_bytes() == whole
    assert again.written == max(0, 5 - max(1, whole[:cut].count(b"\n")))
    assert all(again.has(*row[:2]) for row in rows)


def test_cells_read_back_as_the_same_numbers(tmp_path: Path) -> None:
    """Floats in full; NaN as an empty cell, which pandas and R read as missing."""
    path = tmp_path / "t.csv"
    TidyCsv(path, ("k", "v"), ("k",)).append([(0, 0.1 + 0.2), (1, float("nan"))])
    assert path.read_text() == f"k,v\n0,{0.1 + 0.2!r}\n1,\n"


@pytest.mark.parametrize("text", ["other,columns\n1,2\n", "k,v\n1,2,3\n", "k,v\n1,2\n3\n4,5", "notes"])
def test_a_file_of_another_format_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    """Rows appended to another table would ruin both."""
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"t\.csv: (expected the columns k,v|row [23]: . cells, the header has 2)"):
        TidyCsv(path, ("k", "v"), ("k",))
    assert path.read_text() == text


def test_duplicate_rows_are_dropped_and_contradicting_rows_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two programs at once may have written them before folders were locked; a mean would count rows twice."""
    path = tmp_path / "t.csv"
    path.write_text("k,v\n1,2\n3,4\n1,2\n")
    assert TidyCsv(path, ("k", "v"), ("k",)).has(3)
    assert path.read_text() == "k,v\n1,2\n3,4\n"
    assert "t.csv: removed duplicate rows: 1" in capsys.readouterr().err
    path.write_text("k,v\n1,2\n3,4\n1,5\n")
    with pytest.raises(BadTableError, match=r"t\.csv: two rows with the same key and different values: 1; del"):
        TidyCsv(path, ("k", "v"), ("k",))
    assert path.read_text() == "k,v\n1,2\n3,4\n1,5\n"


def test_derived_values_are_replaced_where_they_differ(tmp_path: Path) -> None:
    """After a correction of a formula, the old bound must neither remain nor appear beside the new one."""
    path = tmp_path / "t.csv"
    table = TidyCsv(path, ("k", "v"), ("k",))
    table.append([(1, 0.5), (2, 0.25)])
    table.renew([(2, 0.75), (3, 1.0)])
    assert path.read_text() == "k,v\n1,0.5\n2,0.75\n3,1.0\n"
    TidyCsv(path, ("k", "v"), ("k",)).renew([(2, 0.75), (3, 1.0)])
    assert path.read_text() == "k,v\n1,0.5\n2,0.75\n3,1.0\n"


def test_of_rows_that_differ_only_in_intervals_one_with_an_interval_remains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Older versions wrote a second row for the interval; each score would be counted twice."""
    path = tmp_path / "t.csv"
    columns = ("k", "value", "ci_low", "ci_high", "resamples")
    path.write_text(",".join(columns) + "\n1,.5,,,\n2,.5,.4,.6,9\n3,.5,,,\n2,.5,,,\n1,.5,.3,.7,9\n1,.5,.2,.8,20\n")
    table = TidyCsv(path, columns, ("k",))
    assert path.read_text().splitlines()[1:] == ["3,.5,,,", "2,.5,.4,.6,9", "1,.5,.2,.8,20"]
    assert "t.csv: removed duplicate rows: 3" in capsys.readouterr().err
    assert [table.has(1), table.has(1, resamples=20), table.has(1, resamples=9)] == [True, True, False]
    assert [table.has(3), table.has(3, resamples=9), table.has(4)] == [True, False, False]
    path.write_text(",".join(columns) + "\n1,.5,,,\n1,.6,.4,.6,9\n")
    with pytest.raises(BadTableError, match="two rows with the same key and different values: 1;"):
        TidyCsv(path, columns, ("k",))
