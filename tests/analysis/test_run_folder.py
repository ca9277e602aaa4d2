"""Run folders: the newest run, epochs on the command line, and the output folder, which one program locks."""

import argparse
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from coupled.analysis.driver import claim, fault, run_program
from coupled.analysis.run import newest_run, read_description
from coupled.analysis.selection import choose_arms, choose_epochs, parse_epochs
from coupled.config.command_line import command_parser
from coupled.storage.run_lock import run_lock
from coupled.storage.snapshots import SnapshotStore

NewRun = Callable[..., Path]


def test_the_newest_run_has_the_newest_run_json(tmp_path: Path) -> None:
    """Analysing an old run must not make it the newest; a folder without run.json is not a run."""
    for age, name in enumerate(("b", "a", "c")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
        os.utime(tmp_path / name / "run.json", (1000 - age, 1000 - age))
    (tmp_path / "d").mkdir()
    assert newest_run(tmp_path) == tmp_path / "b"
    none = (
        r"run_dir: not given, and there is no run directly in '.*/d'; there is none in folders of sweeps either; pass"
    )
    with pytest.raises(ValueError, match=none):
        newest_run(tmp_path / "d")


def test_runs_of_sweeps_are_listed_where_there_is_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep has several runs, so none of them is taken; without their names the user would have to search."""
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("few/seed=1", "few/seed=0", "of_paper/many/seed=0")):
        path = Path("runs", name, "run.json")
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        os.utime(path, (1000 - age, 1000 - age))
    listed = "in folders of sweeps: runs/of_paper/many/seed=0 (newest of 1 run), runs/few/seed=1 (newest of 2 runs)"
    with pytest.raises(ValueError, match=re.escape(f"{Path('runs').resolve()}'; {listed}; pass a run folder")):
        newest_run(Path("runs"))
    with pytest.raises(ValueError, match=re.escape(f"no such folder 'fwe'; {listed}")):
        read_description(Path("fwe"))
    inside = "'runs/few' is not a run folder: it has no run.json; runs in it: runs/few/seed=0, runs/few/seed=1"
    with pytest.raises(ValueError, match=re.escape(inside)):
        read_description(Path("runs/few"))


@pytest.mark.parametrize(
    ("text", "part"), [(None, "has no run.json"), ("{", "not readable as a run's"), ("{}", "no key 'dataset'")]
)
def test_a_folder_without_a_run_is_refused(tmp_path: Path, text: str | None, part: str) -> None:
    """The error names the file, not a missing key."""
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=part):
        read_description(tmp_path)


@pytest.mark.parametrize(
    ("text", "epochs"),
    [("5", [5]), ("0,10,20", [0, 10, 20]), ("0:100:50", [0, 50, 100]), ("3:5,1", [1, 3, 4, 5]), ("0:5:2", [0, 2, 4])],
)
def test_epoch_lists_include_the_last_number(text: str, epochs: list[int]) -> None:
    """0:100:10 means "every tenth of 100 epochs", with the last one."""
    assert sorted(parse_epochs(text)) == epochs


@pytest.mark.parametrize("text", ["", "a", "1,", "1:2:3:4", "-1", "0:10:0", "5:1", "1.5"])
def test_invalid_epoch_lists_are_refused(text: str) -> None:
    """A misread list would analyse the wrong epochs."""
    with pytest.raises(ValueError, match=r"epochs: got"):
        parse_epochs(text)


def test_the_default_epochs_are_those_of_every_arm(tmp_path: Path) -> None:
    """During training only some arms have the newest epoch; a missing epoch before it is an error."""
    store = SnapshotStore(tmp_path)
    for arm, epochs in {"cl": (0, 1, 2, 10), "nscl": (0, 1, 2), "scl": (0, 2, 10)}.items():
        for epoch in epochs:
            store.write(arm, epoch, {}, step=epoch, metadata={})
    assert choose_epochs(store, ["cl", "nscl"], None) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"arm 'scl' has no snapshot of epoch 1 \(epochs: 0, 2, 10\)"):
        choose_epochs(store, ["cl", "scl"], None)
    with pytest.raises(ValueError, match=r"arm 'nscl' has no snapshot of epoch 10 \(epochs: 0-2\)"):
        choose_epochs(store, ["cl", "nscl"], "0:10:10")


def test_a_run_with_nothing_to_compare_is_refused(tmp_path: Path) -> None:
    """Neither an empty table nor a traceback."""
    store = SnapshotStore(tmp_path)
    with pytest.raises(ValueError, match="has no snapshots yet"):
        choose_arms(store, "cl", None)
    store.write("cl", 0, {}, step=0, metadata={})
    with pytest.raises(ValueError, match="no arm except 'cl'"):
        choose_arms(store, "cl", None)


def test_rows_of_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    """The second run's rows would pass for finished."""
    claim(tmp_path / "out", {"name": "a", "settings_sha256": "1"})
    claim(tmp_path / "out", {"name": "a", "settings_sha256": "1"})
    with pytest.raises(ValueError, match="holds rows of another run"):
        claim(tmp_path / "out", {"name": "a", "settings_sha256": "2"})


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file has the name of the folder."""
    (tmp_path / "out").write_text("")
    for folder in (tmp_path / "out", tmp_path / "out/below"):
        with pytest.raises(ValueError, match=r"--output: cannot write to '.*out.*'"), run_lock(folder, "--output"):
            pass


def test_an_output_folder_is_locked_by_one_program(tmp_path: Path) -> None:
    """Two programs would write every row twice. The second gets an error that names the first."""
    with run_lock(tmp_path / "out", "--output"):
        said = rf"--output: '.*out' is being written by process {os.getpid()} on .*; wait for it, or stop it"
        with pytest.raises(ValueError, match=said), run_lock(tmp_path / "out", "--output"):
            pass
    with run_lock(tmp_path / "out", "--output"):
        claim(tmp_path / "out", {"name": "a"})
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["source.json"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_an_output_folder_that_cannot_be_written_is_an_os_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It has the folder and the system's reason; programs print it as one line with status 1."""

    def fails(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(OSError, match=os.strerror(number)) as caught, run_lock(tmp_path / "out", "--output"):
        pass
    assert str(tmp_path / "out") in fault(caught.value)
    assert caught.value.errno == number


def test_an_error_names_the_argument_in_python_and_the_option_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`compute` has no option `--num-images`, and the command line has no argument `num_images`."""

    def program(options: argparse.Namespace) -> None:
        raise ValueError(options.message)

    def shown(message: str) -> str:
        parser = command_parser("alignment", "", [], [])
        parser.add_argument("message")
        parser.add_argument("--num-images")
        assert run_program(program, parser, [message]) == 2
        return capsys.readouterr().err.strip().partition(": ")[2]

    assert shown("num_images: 1 image; too few") == "--num-images: 1 image; too few"
    assert shown("run_dir: not given") == "--run-dir: not given"
    assert shown("dataset.root: no such folder") == "dataset.root: no such folder"
    assert shown("no score of a and b") == "no score of a and b"
