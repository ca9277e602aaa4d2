"""The programs outside the repository folder: files, messages and errors."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
import torch
import yaml
from PIL import Image
from support import tiny

import coupled
from coupled import _version, train
from coupled.analysis import alignment, weight_gap
from coupled.config.errors import in_words
from coupled.monitoring import commands


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
    """Change to the working directory, for programs called in this process; restore torch's deterministic switch."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    monkeypatch.chdir(place)
    yield place
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.usefixtures("here")
def test_the_three_programs_work_from_another_directory(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths are relative to the current folder. Without --run-dir the newest run is used and printed."""
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


def test_the_resume_command_of_a_stopped_run_finishes_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command has no --max-steps. A renamed settings file continues the same run, unless `name` is set: the name is
    stored in every snapshot.
    """
    assert train.main(["--config", "tiny.yaml", "--run-dir", "runs/again", "--overwrite", "--max-steps=2"]) == 0
    command = capsys.readouterr().out.rpartition(": coupled train ")[2].split()
    assert command == ["--resume", "--config", "tiny.yaml", "--run-dir", "runs/again"]
    (here / "renamed.yaml").write_text(tiny.TINY_YAML)
    renamed = [word.replace("tiny.yaml", "renamed.yaml") for word in command]
    assert train.main([*renamed, "name=other"]) == 2
    assert "name was tiny, is other" in capsys.readouterr().err
    assert train.main(renamed) == 0
    assert tiny.snapshot_bytes(here / "runs/again") == tiny.snapshot_bytes(here / "runs/tiny")
    assert json.loads((here / "runs/again/run.json").read_text())["settings"]["name"] == "tiny"


def test_resume_without_a_run_says_that_it_starts_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cluster's first start needs it, but a user who mistypes the name would lose hours. It is the first line."""
    words = ["--config", "tiny.yaml", "--resume", "epochs=0", "--run-dir"]
    assert train.main([*words, "runs/mistyped"]) == 0
    first = "no saved state in 'runs/mistyped': starts from step 0\nreading dataset 'digits'\n"
    assert capsys.readouterr().out.startswith(first)
    (here / "runs/no_run").mkdir()
    (here / "runs/no_run/notes.txt").touch()
    for folder, status in (("runs/mistyped", 0), ("runs/no_run", 2)):
        assert train.main([*words, folder]) == status
        assert "no saved state" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "single", "ranks"),
    [
        (tiny.REPOSITORY / "coupled/train.py", "python coupled/train.py", "coupled/train.py"),
        (Path("bin/coupled"), "coupled train", "-m coupled train"),
    ],
)
def test_the_resume_command_uses_the_launcher_of_the_run(
    monkeypatch: pytest.MonkeyPatch, program: Path, single: str, ranks: str
) -> None:
    """Another number of processes would round differently. A run on several machines has no single command."""
    monkeypatch.chdir(tiny.REPOSITORY)
    monkeypatch.setattr(commands, "started_by", lambda: program)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    options = train.parse(["--config", "a.yaml", "seed=1"])
    assert train.next_time(options, 1) == f"{single} --resume --config a.yaml seed=1"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "any")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    launcher = "torchrun --standalone --nproc_per_node=2"
    assert train.next_time(options, 2) == f"{launcher} {ranks} --resume --config a.yaml seed=1"
    of_four = f"(on every rank, started as before) {single} --resume --config a.yaml seed=1"
    assert train.next_time(options, 4) == of_four


def test_derived_settings_are_kept_when_a_run_resumes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Warm-up (derived from the epochs) and image size (derived from the images) keep their values when the epochs or
    an image change. An unreadable image is reported as such, not as a changed size.
    """
    for place in ("train/a/1", "train/b/2", "test/a/3", "test/b/4"):
        path = here / f"own/{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 20), (len(place), 9, int(place[-1]))).save(path)
    (here / "own.yaml").write_text(
        tiny.TINY_YAML.replace("{name: digits, image_size: 8}", "{name: folder, root: own}").replace(
            "warmup_epochs: 0", "schedule: constant"
        )
        + "batch: {size: 2}\narms: {cl: dcl, nscl: null, scl: null, ce: null}\n"
    )
    words = ["--config", "own.yaml", "epochs=2"]
    assert train.main([*words, "--max-steps", "1"]) == 0
    words = [*words[:2], "epochs=3", "--resume"]
    assert train.main([*words, "--max-steps", "2"]) == 0
    Image.new("RGB", (40, 60), (1, 2, 3)).save(path)
    words[2] = "epochs=4"
    assert train.main([*words, "--max-steps", "3", "--accept-changed-images"]) == 0
    settings = json.loads((here / "runs/own/run.json").read_text())["settings"]
    assert (settings["epochs"], settings["dataset"]["image_size"]) == (4, 16)
    assert settings["optimizer"]["warmup_epochs"] == 0.2
    path.write_text("no picture")
    capsys.readouterr()
    for given in ([*words, "--accept-changed-images"], ["--config", "own.yaml", "name=new"]):
        assert train.main(given) == 2
        error = capsys.readouterr().err
        assert error.startswith("coupled train: own/test/b/4.png: not a readable image (")
        assert error.count("\n") == 1


def test_a_checkout_that_is_not_installed_trains(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without package metadata and git, the version is known and the commit is not."""

    monkeypatch.setattr(_version, "distributions", lambda **_: iter(()))
    monkeypatch.setenv("PATH", "")
    assert train.main(["--config", "tiny.yaml", "--run-dir", "runs/bare", "epochs=0"]) == 0
    about = json.loads((here / "runs/bare/run.json").read_text())
    assert about["versions"]["coupled"] == coupled.__version__ == _version.RELEASE
    assert about["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert about["git_commit"] is None


@pytest.mark.parametrize(
    ("installed", "commit", "whole"),
    [
        ("+g1a2b3c4d5e6f", "1a2b3c4d5e6f", "+g1a2b3c4d5e6f"),
        ("+g1a2b3c4d5e6f.dirty", "1a2b3c4d5e6f+changes", "+g1a2b3c4d5e6f.dirty"),
        ("", None, ""),
    ],
)
def test_an_installed_wheel_names_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str, commit: str | None, whole: str
) -> None:
    """The wheel has no git repository. The commit of an installed wheel is not used for a copy on PYTHONPATH."""
    (tmp_path / "coupled").mkdir()
    (tmp_path / "coupled.dist-info").mkdir()
    (tmp_path / "coupled.dist-info/METADATA").write_text(f"Name: coupled\nVersion: {_version.RELEASE}{installed}\n")
    monkeypatch.setattr(_version, "HERE", tmp_path / "coupled")
    assert (_version.git_commit(), coupled.__version__) == (commit, f"{_version.RELEASE}{whole}")
    monkeypatch.setattr(_version, "HERE", tmp_path / "copy/coupled")
    assert _version.git_commit() is None


def test_ctrl_c_before_the_first_step_prints_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While images are read or networks are built there is nothing to save."""

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coupled.coordinator.load_dataset", interrupted)
    assert train.main(["--config", "tiny.yaml", "--run-dir", "runs/never"]) == 130
    said = capsys.readouterr()
    assert said.err == "coupled train: interrupted\n"
    assert said.out == "reading dataset 'digits'\n"
    assert not (here / "runs/never").exists()


@pytest.mark.usefixtures("here")
def test_an_encoding_error_is_not_reported_as_bad_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """UnicodeEncodeError is a ValueError, but its cause is the locale. The status is 1."""

    def in_ascii(*arguments: object, **options: object) -> None:
        "data/\u732b".encode("ascii")

    monkeypatch.setattr("coupled.coordinator.load_dataset", in_ascii)
    assert train.main(["--config", "tiny.yaml", "--run-dir", "runs/never"]) == 1
    reason = "'data/\u732b' cannot be written in ascii; set PYTHONUTF8=1 to use UTF-8"
    assert capsys.readouterr().err == f"coupled train: {reason}\n"
    for text in ("<p>" * 1000 + "\udcfc" + "</p>" * 1000, "\udcfc" * 1000):  # a page
        error = UnicodeEncodeError("utf-8", text, text.index("\udcfc"), text.index("\udcfc") + 1, "surrogates")
        assert "\udcfc" in in_words(error)
        assert len(in_words(error)) < 130


@pytest.mark.parametrize(
    ("arms", "program"), [(["cl", "nscl"], "weight-gap"), (["byol", "ce"], "weight-gap"), (["ce"], "quality")]
)
def test_the_suggested_commands_fit_the_arms_of_the_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, arms: list[str], program: str
) -> None:
    """The weight gap is not suggested for a single arm. The suggested path works in a shell."""
    assert train.next_command(arms, Path("runs/a b")) == f"coupled {program} --run-dir 'runs/a b'"
    monkeypatch.setattr(commands, "started_by", lambda: tiny.REPOSITORY / "coupled/train.py")
    launcher = f"analysis/{program.replace('-', '_')}.py"
    monkeypatch.chdir(tiny.REPOSITORY)
    assert train.next_command(arms, Path("runs/a b")) == f"python {launcher} --run-dir 'runs/a b'"
    monkeypatch.chdir(place)
    assert Path(train.next_command(arms, Path("runs/a")).split()[1]) == tiny.REPOSITORY / launcher


@pytest.mark.usefixtures("here")
def test_a_sweep_file_is_not_accepted_as_settings_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep file has no dataset; the message "dataset: missing" would be misleading."""
    Path("sweep.yaml").write_text("base: tiny.yaml\ngrid: {temperature: [0.1, 1]}\n")
    assert train.main(["--config", "sweep.yaml"]) == 2
    command = "coupled sweep sweep.yaml"
    assert (
        f"sweep.yaml: this is a sweep file (it has the key 'base'); run it with: {command}" in capsys.readouterr().err
    )


@pytest.mark.usefixtures("here")
def test_printed_settings_can_be_loaded_again(capsys: pytest.CaptureFixture[str]) -> None:
    """All defaults are printed, no file is written, and the printed file gives the same settings."""
    before = sorted(Path().rglob("*"))
    assert train.main(["demo", "epochs=2", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert sorted(Path().rglob("*")) == before
    Path("printed.yaml").write_text(printed)
    assert train.main(["--config", "printed.yaml", "--print-config"]) == 0
    assert capsys.readouterr().out == printed
    assert (yaml.safe_load(printed)["name"], yaml.safe_load(printed)["epochs"]) == ("demo", 2)
    Path("printed.yaml").unlink()


@pytest.mark.usefixtures("here")
def test_the_start_prints_the_size_and_cost_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Global batch, batch per rank, negatives, steps, learning rate, parameters and disk space."""
    assert train.main(["--config", "tiny.yaml", "--run-dir", "runs/other", "epochs=0"]) == 0
    said = capsys.readouterr().out
    for part in ("global batch 256 = 1 x 256", "510", "5 steps", "learning rate 0.06", "parameters", "MiB free"):
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (
            ["--config", "nowhere.yaml"],
            "config: no file 'nowhere.yaml'; pass a path or the name of a packaged settings file",
        ),
        (["--config", "runs"], "config: 'runs' is a folder; pass a file or the name of a packaged settings file"),
        (["epochs=1"], "CONFIG: missing; pass a settings file or the name of a packaged one (demo)"),
        (["--config", "tiny.yaml", "batch.siz=3"], "did you mean 'size'"),
        (["--config", "tiny.yaml"], "--resume to continue it or --overwrite"),
        (
            ["--config", "tiny.yaml", "--run-dir", "runs/x", "dataset.name=digit"],
            "unknown dataset 'digit'; did you mean 'digits'",
        ),
        (["--config", "tiny.yaml", "--run-dir", "runs/x", "dataset.colour=3"], "dataset.colour: unknown key"),
        (["--config", "tiny.yaml", "--run-dir", "runs/x", "device=cuda"], "device: got 'cuda'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """No traceback is printed and no run folder remains."""
    if part.startswith("device") and torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so device=cuda is good input")
    assert train.main(arguments) == 2
    errors = capsys.readouterr().err
    assert part in errors
    assert errors.count("\n") == 1, errors
    assert not (here / "runs/x").exists()
