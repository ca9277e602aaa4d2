"""The programs with an output folder that is locked by another program or cannot be written."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from coupled.analysis import alignment, bounds, collapse, losses, quality, verify, weight_gap
from coupled.analysis.report import program as report
from coupled.storage.atomic_files import FULL, THEN
from coupled.storage.run_lock import run_lock

NewRun = Callable[..., Path]
WRITERS = (weight_gap, alignment, quality, collapse, losses, bounds)


def name_of(program: ModuleType) -> str:
    return program.__name__.removesuffix(".program").rpartition(".")[2].replace("_", "-")


def test_a_second_program_on_a_locked_folder_names_the_holder_and_writes_nothing(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the lock, two analyses at once write rows twice."""
    with run_lock(tmp_path, "--output"):
        for program in WRITERS:
            assert program.main(["--run-dir", str(drifting_run), "--output", str(tmp_path)]) == 2
            error = capsys.readouterr().err
            said = f"coupled {name_of(program)}: --output: '{tmp_path}' is being written by process {os.getpid()} on "
            assert error.startswith(said)
            assert error.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert weight_gap.main(["--run-dir", str(drifting_run), "--output", str(tmp_path), "--epochs", "0"]) == 0
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("program", [*WRITERS, verify, report], ids=name_of)
@pytest.mark.parametrize("number", [errno.EROFS, errno.EDQUOT])
def test_an_output_folder_that_cannot_be_created_is_one_line_with_the_reason(
    drifting_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    program: Any,
    number: int,
) -> None:
    """Status 1, because the input is valid. figures.py is tested in test_figures.py."""

    def fails(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    if program is verify and number == errno.EDQUOT:
        pytest.skip("the same path as above, after a second of looking at snapshots")
    monkeypatch.setattr(Path, "mkdir", fails)
    output = tmp_path / "out" / "page.html" if program is report else tmp_path / "out"
    assert program.main(["--run-dir", str(drifting_run), "--output", str(output)]) == 1
    error = capsys.readouterr().err.splitlines()
    then = THEN if number in FULL else ""
    assert error == [f"coupled {name_of(program)}: {tmp_path / 'out'}: {os.strerror(number)}{then}"]


def test_a_disk_that_fills_up_is_one_line_and_leaves_no_partial_row(
    drifting_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Existing rows are kept, and the next call writes the others."""
    real, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    arguments = ["--run-dir", str(drifting_run), "--output", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert weight_gap.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"coupled weight-gap: {tmp_path / 'weight_gap.csv'}: No space left on device")
    assert weight_gap.main(arguments) == 0
    rows = (tmp_path / "weight_gap.csv").read_text().splitlines()
    assert len(rows) == len({*rows})


def test_a_run_without_cl_is_compared_with_its_first_arm(new_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    """The next commands that train.py and the report suggest work for every run."""
    run = new_run(arms=("scl", "ce"), epochs=(0,))
    assert weight_gap.main(["--run-dir", str(run)]) == 0
    assert "scl against ce" in capsys.readouterr().out


def test_cka_of_fewer_images_than_features_is_a_warning(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Biased CKA of 20 images and 32 features is high for any two arms; for the 8 features of z there is no warning."""
    few = ["--run-dir", str(drifting_run), "--epochs", "0", "--compare", "nscl", "--split", "test"]
    few += ["--num-images", "20"]
    assert alignment.main([*few, "--output", str(tmp_path), "--metrics", "cka"]) == 0
    error = capsys.readouterr().err
    assert error.startswith(
        "coupled alignment: warning: test: n = 20 images are fewer than the D features of h (D = 32); cka is a biased"
    )
    assert error.count("\n") == 1
    assert alignment.main([*few, "--output", str(tmp_path), "--metrics", "rsa"]) == 0
    assert capsys.readouterr().err == ""
