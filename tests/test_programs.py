"""The programs from another working directory than the repository's: what they write, say and refuse."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
import tiny
import torch

from analysis import alignment, weight_gap
from coupled import train


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a settings file and its run."""
    place = tmp_path_factory.mktemp("elsewhere")
    (place / "tiny.yaml").write_text(tiny.TINY_YAML)
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    with contextlib.chdir(place):
        assert train.main(["--config", "tiny.yaml"]) == 0
    torch.use_deterministic_algorithms(before[0])
    torch.set_num_threads(before[1])
    return place


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, entered, for programs called without a subprocess; torch's switch is put back."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    monkeypatch.chdir(place)
    yield place
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.usefixtures("here")
def test_the_three_programs_work_from_another_directory(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths are the user's, not the repository's; without --run the newest run is taken and named."""
    assert weight_gap.main(["--compare", "nscl"]) == 0
    assert "runs/tiny" in capsys.readouterr().out
    assert alignment.main([]) == 0
    folder = place / "runs/tiny/analysis"
    gaps = pandas.read_csv(folder / "weight_gap.csv")
    assert set(gaps["arm"]) == {"nscl"}
    assert (gaps[gaps["epoch"] == 0]["gap"] == 0).all()
    for split in ("train", "test"):
        rows = pandas.read_csv(folder / f"{split}_alignment.csv")
        assert set(rows["arm"]) == {"nscl", "scl", "ce"}
        assert (rows[rows["epoch"] == 0]["value"] == 1).all()
        assert (rows[rows["epoch"] == 1]["value"] < 1).all()


@pytest.mark.usefixtures("here")
def test_the_start_says_what_will_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Global batch, per-rank batch, negatives, steps, rate, parameters, disk: read once, before days of training."""
    assert train.main(["--config", "tiny.yaml", "--run", "runs/other", "epochs=0"]) == 0
    said = capsys.readouterr().out
    for part in ("global batch 256 = 1 x 256", "510", "5 steps", "learning rate 0.06", "parameters", "MiB free"):
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--config", "nowhere.yaml"], "--config: no file 'nowhere.yaml'"),
        (["--config", "tiny.yaml", "batch.siz=3"], "did you mean 'size'"),
        (["--config", "tiny.yaml"], "--resume to continue it or --overwrite"),
        (
            ["--config", "tiny.yaml", "--run", "runs/x", "image_set.name=digit"],
            "unknown image set 'digit'; did you mean 'digits'",
        ),
        (["--config", "tiny.yaml", "--run", "runs/x", "image_set.colour=3"], "image_set.colour: unknown key"),
        (["--config", "tiny.yaml", "--run", "runs/x", "device=cuda"], "device: got 'cuda'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """No traceback, and no run folder left behind."""
    if part.startswith("device") and torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so device=cuda is good input")
    assert train.main(arguments) == 2
    errors = capsys.readouterr().err
    assert part in errors
    assert errors.count("\n") == 1, errors
    assert not (here / "runs/x").exists()
