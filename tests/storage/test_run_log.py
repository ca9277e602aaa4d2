"""The rows and the description of a run."""

import csv
from pathlib import Path

import pytest

from coupled.storage.run_description import description_digest, read_run_json
from coupled.storage.run_lock import MovedError
from coupled.storage.run_log import CsvLog, check_folder, drop_rows_after, prepare_folder


def test_numbers_in_a_log_row_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    """A rounded loss cannot prove that two runs are equal."""
    log = CsvLog(tmp_path / "a.csv", ["step", "loss"])
    log.row([1, 0.1 + 0.2])
    log.close()
    with (tmp_path / "a.csv").open() as file:
        assert list(csv.reader(file)) == [["step", "loss"], ["1", "0.30000000000000004"]]


def test_a_row_is_in_the_file_when_the_call_returns(tmp_path: Path) -> None:
    """A crash must not lose hours of rows."""
    log = CsvLog(tmp_path / "a.csv", ["step"])
    log.row([1])
    assert (tmp_path / "a.csv").read_text() == "step\n1\n"
    log.close()


def test_a_table_with_other_columns_gets_no_rows(tmp_path: Path) -> None:
    """A run that was started before a column existed would get rows whose numbers stand below other names."""
    CsvLog(tmp_path / "a.csv", ["step", "lr"]).close()
    with pytest.raises(ValueError, match=r"a\.csv: has 2 columns, and this version writes 3; continue with"):
        CsvLog(tmp_path / "a.csv", ["step", "lr", "ce_lr"])


def test_a_resume_with_many_other_settings_names_the_first_ones_in_a_short_line(tmp_path: Path) -> None:
    """Another config differs in all keys, some of them whole sections: the line is read on a terminal."""
    there = {"arms": {name: {"objective": "dcl", "text": 9 * name} for name in ("abcdefghij", "b")}, "seed": 1}
    prepare_folder(tmp_path, {"settings": there}, resume=False)
    here = {f"key{number}": {"a": number} for number in range(30)} | {"seed": 2}
    with pytest.raises(ValueError, match="other settings: arms was ") as error:
        check_folder(tmp_path, here, resume=True, overwrite=False)
    said = str(error.value)
    shown = (
        "seed was 1, is 2; key0 was None, is {'a': 0}; key1 was None, is {'a': 1}; and 28 more; use those in run.json"
    )
    assert f"..., is None; {shown}" in said
    assert len(said) < 300 + len(str(tmp_path))
    with pytest.raises(ValueError, match="other settings: seed was 1, is 2; use those"):
        check_folder(tmp_path, there | {"seed": 2}, resume=True, overwrite=False)


def test_a_table_that_was_replaced_gets_no_rows(tmp_path: Path) -> None:
    """They would be written to a file that an editor has renamed or deleted."""
    path = tmp_path / "a.csv"
    log = CsvLog(path, ["step"])
    log.row([1])
    path.rename(tmp_path / "b.csv")
    path.write_text("step\n1\n")
    with pytest.raises(MovedError, match=rf"'{path}' was deleted or replaced while the run was writing"):
        log.row([2])
    log.close()
    assert path.read_text() == (tmp_path / "b.csv").read_text() == "step\n1\n"


def test_rows_after_the_resume_point_and_torn_rows_are_cut(tmp_path: Path) -> None:
    """Duplicate rows would count steps twice; a row without a line end is incomplete."""
    path = tmp_path / "a.csv"
    path.write_text("epoch,step,loss\n1,1,.5\n1,2,.4\n2,3,.3\n2,4,.")
    drop_rows_after(path, "step", 3)
    assert path.read_text() == "epoch,step,loss\n1,1,.5\n1,2,.4\n2,3,.3\n"
    drop_rows_after(path, "step", 2)
    assert path.read_text() == "epoch,step,loss\n1,1,.5\n1,2,.4\n"
    drop_rows_after(tmp_path / "absent.csv", "step", 0)
    for file, last in (("absent.csv", 2), ("a.csv", 3)):
        with pytest.raises(ValueError, match=rf"{file}: rows are missing: expected all up to step {last}"):
            drop_rows_after(tmp_path / file, "step", last)
    path.write_text("epoch,step,loss\nx,y,z\n")
    with pytest.raises(ValueError, match=r"a\.csv: column 'step' is missing or is not all integers"):
        drop_rows_after(path, "step", 2)


def test_a_resumed_run_keeps_its_description(tmp_path: Path) -> None:
    """run.json describes the first start of the run; only --overwrite replaces it."""
    run = tmp_path / "run"
    prepare_folder(run, {"settings": {"seed": 1}, "mark": "first"}, resume=False)
    prepare_folder(run, {"settings": {"seed": 1}, "mark": "second"}, resume=True)
    assert read_run_json(run)["mark"] == "first"
    prepare_folder(run, {"settings": {"seed": 1}, "mark": "third"}, resume=False)
    assert read_run_json(run)["mark"] == "third"
    changed = {"settings": {"seed": 1, "device": "cuda"}, "world_size": 2}
    assert prepare_folder(run, changed, resume=True) == [
        "world_size was None, is 2: from here on, results may differ in the last bits"
    ]
    now = {"settings": changed["settings"], "mark": "third"}
    assert read_run_json(run) == {**now, "digest": description_digest(now)}


def test_every_changed_setting_is_named_with_both_values(tmp_path: Path) -> None:
    """The user must see every difference, including added and removed keys."""
    run = tmp_path / "run"
    prepare_folder(run, {"settings": {"seed": 1, "batch": {"size": 8}, "old": 1}}, resume=False)
    with pytest.raises(
        ValueError, match=r"seed was 1, is 2; batch\.size was 8, is 4; old was 1, is None; new was None, is 5"
    ):
        check_folder(run, {"seed": 2, "batch": {"size": 4}, "new": 5}, resume=True, overwrite=False)


def test_an_unreadable_description_is_named(tmp_path: Path) -> None:
    """The error states the path and the reason."""
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json: not readable as a run's description"):
        read_run_json(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"run\.json: expected a JSON object, found list"):
        read_run_json(tmp_path)
