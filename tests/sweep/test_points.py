"""Definition of a sweep: lists and ranges, names of points, grids and zipped lists, invalid input."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from support import tiny

from coupled.config.schema import from_resolved
from coupled.sweep import program as sweep
from coupled.sweep.names import point_name, run_name, spelled
from coupled.sweep.points import parse_list, points, read_sweep

CONFIGS = Path(__file__).parents[2] / "configs"
SWEEPS = [path for path in sorted(CONFIGS.rglob("*.yaml")) if "\nbase:" in path.read_text()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the settings file of a small run."""
    place = tmp_path_factory.mktemp("points")
    (place / "small.yaml").write_text(tiny.TINY_YAML)
    return place


def sweep_file(place: Path, **content: Any) -> Path:
    path = place / "file.yaml"
    path.write_text(yaml.safe_dump({"base": "small.yaml", **content}))
    return path


def names(*arguments: Any, **options: Any) -> list[str]:
    return [point.name for point in points(read_sweep(*arguments, **options))]


def test_lists_and_ranges_are_parsed() -> None:
    """A range includes its end; a list can be one value; 1:30 is a range, not YAML 1.1's base-60 number 90."""
    assert parse_list("temperature=0.1,5e-1,1") == ("temperature", [0.1, 0.5, 1])
    assert parse_list("seed=0:2") == ("seed", [0, 1, 2])
    assert parse_list("seed=7,0:6:2") == ("seed", [7, 0, 2, 4, 6])
    assert parse_list("dataset.classes=[1,2],[3,4]") == ("dataset.classes", [[1, 2], [3, 4]])
    assert parse_list("arms.ce=null,{objective: dcl, temperature: 1}")[1] == [
        None,
        {"objective": "dcl", "temperature": 1},
    ]
    for wrong in ("seed", "=1", "seed=", "seed=1,,2", "seed=5:4", "seed=0:9:0", "seed=0:1e3", "seed=1:30.5"):
        with pytest.raises(ValueError, match=re.escape(f"'{wrong}'")):
            parse_list(wrong)


def test_the_name_of_a_point_does_not_depend_on_order_or_spelling(place: Path) -> None:
    """With two folders, one point would be trained twice and counted twice in the mean."""
    config = place / "small.yaml"
    one = names(config, ["temperature=0.1,1", "seed=0:1"])
    assert one == [f"temperature={t},seed={s}" for t in ("0.1", "1") for s in (0, 1)]
    assert names(config, ["seed=0,1", "temperature=1e-1,1.0"]) == one
    assert names(config, ["temperature=0.1,1"]) == one[::2]  # the seed of the settings is the same point


@pytest.mark.parametrize(
    "value", [0.1, 1e-06, True, None, "dcl", "a b/../$(x)", [1, 2], ["x", 2], [[1]], {"a": "'"}, "é" * 300, []]
)
def test_names_are_safe_for_a_shell_and_valid_for_a_run(value: Any) -> None:
    """Users paste folder names into shells. The settings check the name of the run."""
    name = point_name({"dataset.classes": value, "seed": 3})
    assert shlex.quote(name) == name or "," in name  # a shell expands a comma only within braces
    assert re.fullmatch(r"[A-Za-z0-9._=,+-]{1,255}", name)
    assert from_resolved({**tiny.TINY, "name": run_name(name)}).name == run_name(name)


def test_different_values_have_different_names() -> None:
    """Also values that differ only in replaced characters, and names that are shortened."""
    values = ["a b", "a/b", "a_b", ["a", "b"], [["a"], "b"], {"a": 1}, {"a": 2}, 0.1, 0.11, "x" * 400, "x" * 401]
    assert len({point_name({"key": value}) for value in values}) == len(values)
    assert spelled(1) == spelled(1.0) == "1"


def test_a_grid_is_a_product_and_zip_pairs_lists(place: Path) -> None:
    """In a file and on the command line. The command line replaces the values of a key in the file."""
    file = sweep_file(
        place,
        grid={"temperature": [0.1, 1.0]},
        zip={"batch.size": [64, 128], "optimizer.base_lr": [0.1, 0.2]},
        seeds=2,
        overrides={"epochs": 2},
    )
    found = points(read_sweep(file))
    pairs = {(v["temperature"], v["batch.size"], v["optimizer.base_lr"], v["seed"]) for v in (p.values for p in found)}
    assert pairs == {(t, b, lr, s) for t in (0.1, 1.0) for b, lr in ((64, 0.1), (128, 0.2)) for s in (0, 1)}
    assert len(found) == 8
    for point in found:
        assert point.settings["temperature"] == point.values["temperature"]
        assert point.settings["batch"]["size"] == point.values["batch.size"]
        assert (point.settings["epochs"], point.settings["seed"]) == (2, point.values["seed"])
    replaced = points(read_sweep(file, ["seed=5", "epochs=1"], [["temperature=2,3", "batch.size=32,256"]]))
    assert {(p.values["temperature"], p.values["batch.size"]) for p in replaced} == {(2, 32), (3, 256)}
    assert {(p.values["seed"], p.values["epochs"]) for p in replaced} == {(5, 1)}


BAD = [
    (["nowhere.yaml"], "no file 'nowhere.yaml'"),
    (["small.yaml", "temperatur=1,2"], "temperatur: unknown key; did you mean 'temperature'"),
    (["small.yaml", "temperature=1,cold"], "temperature: got 'cold'"),
    (["small.yaml", "seed=a:b"], "'seed=a:b': range a:b: allowed are whole numbers, first:last"),
    (["small.yaml", "dataset.colour=1,2"], "dataset.colour: unknown key"),
    (["small.yaml", "temperature=1,1.0"], "the point temperature=1,seed=0 is given twice"),
    (["small.yaml", "temperature=1", "temperature=2"], "temperature: given twice"),
    (["small.yaml", "name=a,b"], "name: a point is named after its values"),
    (["small.yaml", "a b=1"], "'a b' is not a settings key"),
    (["small.yaml", "seed=0:199", "batch.size=100:299"], "40,000 points; at most 10,000"),
    (["small.yaml", "--zip", "seed=0:1", "temperature=1,2,3"], "seed has 2, temperature has 3"),
    (["small.yaml", "seed=0:1", "--index", "2"], "--index: got 2; allowed is 0 to 1"),
    (
        ["small.yaml", "--analyses", "weight_gap.py"],
        "analyses: got 'weight_gap.py'; it must begin with one of weight-gap, alignment",
    ),
    (["small.yaml", "--analyses", "quality --run-dir x"], "remove --run-dir, which the sweep sets"),
    (
        ["small.yaml", "--analyses", "losses --epochs 1 5"],
        "analyses: got 'losses --epochs 1 5'; unrecognized arguments: 5",
    ),
    (["small.yaml", "--jobs", "0"], "--jobs"),
    (["small.yaml", "--name", "taken"], "--name: 'runs/taken' is the folder of a run"),
    (["bad0.yaml"], "bad0.yaml: gird: unknown key; did you mean 'grid'"),
    (["bad1.yaml"], "bad1.yaml: figure.metric: unknown key; did you mean 'metrics'"),
    (["bad2.yaml"], "factor: got 'epochs'; allowed are keys with several values: temperature"),
    (["bad3.yaml"], "seeds"),
    (["bad4.yaml"], "no file 'nowhere.yaml'"),
]
BAD_FILES: list[dict[str, Any]] = [
    {"gird": {}},
    {"figure": {"metric": "cka"}},
    {"grid": {"temperature": [1, 2]}, "factor": "epochs"},
    {"seeds": -1},
    {"base": "nowhere.yaml", "seeds": 1},
]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_analyses_of_our_sweeps_are_valid(path: Path) -> None:
    """One with a misspelt option was refused after the hours of training before it."""
    assert read_sweep(path).analyses


@pytest.mark.parametrize(("arguments", "part"), BAD)
def test_bad_input_is_one_line_and_status_2(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """All points are checked before the first one starts."""
    monkeypatch.chdir(place)
    (place / "runs/taken").mkdir(parents=True, exist_ok=True)
    (place / "runs/taken/run.json").touch()
    for number, content in enumerate(BAD_FILES):
        (place / f"bad{number}.yaml").write_text(yaml.safe_dump({"base": "small.yaml", **content}))
    assert sweep.main(arguments) == 2
    said = capsys.readouterr().err
    assert part in said
    assert said.count("\n") == 1, said
    assert not (place / "runs/small_sweep").exists()


def test_a_path_with_a_newline_is_printed_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters in a name are escaped, so that they cannot change the terminal output."""
    folder = tmp_path / "a\nb"
    folder.mkdir()
    monkeypatch.setattr(sweep, "collect", lambda _: pd.DataFrame({"run": ["r"]}))
    monkeypatch.setattr(sweep, "draw", lambda *_: [folder / "x\x1b.png"])
    assert sweep.show(SimpleNamespace(folder=folder, analyses=["alignment"]))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("a\\nb/sweep.csv: 1 row of 1 run")
    assert second.endswith("a\\nb/x\\x1b.png")
