"""Sweeps: names of points, what is skipped and what goes on, failures, the collected table and its spread."""

import json
import os
import re
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sweep
import sweep_figures
import sweep_jobs
import tiny
import torch
import yaml
from sweep_jobs import Children, is_finished, last_line, run_points
from sweep_names import point_name, run_name, spelled
from sweep_points import Point, parse_list, points, read_sweep
from sweep_tables import collect, spread, write_definition

from analysis import alignment, weight_gap
from coupled.coordinator import Coordinator
from coupled.process_group import process_group
from coupled.settings import from_resolved

SMALL = {key: value for key, value in tiny.TINY.items() if key not in ("name", "seed")} | {
    "epochs": 1,
    "arms": {"cl": "dcl", "nscl": "nscl"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the settings file of a small run."""
    place = tmp_path_factory.mktemp("sweep")
    (place / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return place


def train(point: Point, until_step: int | None = None) -> None:
    """Train a point in this process, as its subprocess would."""
    settings = from_resolved(point.settings)
    with process_group("cpu", settings.timeout_seconds, 1) as group:
        Coordinator(settings, group, point.folder).train(until_step=until_step)


@pytest.fixture(scope="module")
def measured(place: Path) -> Path:
    """The folder of a sweep over two temperatures and two seeds, trained and measured in this process."""
    definition = read_sweep(place / "small.yaml", ["temperature=0.1,1", "seed=0:2"], runs=place / "measured")
    every = points(definition)
    write_definition(definition, every)
    deterministic = torch.are_deterministic_algorithms_enabled()
    for point in every:
        train(point)
        weight_gap.main(["--run", str(point.folder)])
        alignment.main(["--run", str(point.folder), "--split", "test", "--layer", "h", "--metrics", "cka", "rsa"])
    torch.use_deterministic_algorithms(deterministic)
    return definition.folder


def sweep_file(place: Path, **content: Any) -> Path:
    path = place / "file.yaml"
    path.write_text(yaml.safe_dump({"base": "small.yaml", **content}))
    return path


def names(*arguments: Any, **options: Any) -> list[str]:
    return [point.name for point in points(read_sweep(*arguments, **options))]


def test_lists_and_ranges_are_read_as_they_are_written() -> None:
    """A range without its end, a list as one value, and never YAML's sixties: 0:5 is not five, nor 1:30 ninety."""
    assert parse_list("temperature=0.1,5e-1,1") == ("temperature", [0.1, 0.5, 1])
    assert parse_list("seed=0:3") == ("seed", [0, 1, 2])
    assert parse_list("seed=7,0:6:2") == ("seed", [7, 0, 2, 4])
    assert parse_list("image_set.classes=[1,2],[3,4]") == ("image_set.classes", [[1, 2], [3, 4]])
    assert parse_list("arms.ce=null,{objective: dcl, temperature: 1}")[1] == [
        None,
        {"objective": "dcl", "temperature": 1},
    ]
    for wrong in ("seed", "=1", "seed=", "seed=1,,2", "seed=5:5", "seed=0:9:0", "seed=0:1e3", "seed=1:30.5"):
        with pytest.raises(ValueError, match=re.escape(f"'{wrong}'")):
            parse_list(wrong)


def test_a_point_has_one_name_whatever_the_order_and_the_spelling(place: Path) -> None:
    """Two folders for one point would train it twice, and average it with itself."""
    config = place / "small.yaml"
    one = names(config, ["temperature=0.1,1", "seed=0:2"])
    assert one == [f"temperature={t},seed={s}" for t in ("0.1", "1") for s in (0, 1)]
    assert names(config, ["seed=0,1", "temperature=1e-1,1.0"]) == one
    assert names(config, ["temperature=0.1,1"]) == one[::2]  # the seed of the settings is the same point


@pytest.mark.parametrize(
    "value", [0.1, 1e-06, True, None, "dcl", "a b/../$(x)", [1, 2], ["x", 2], [[1]], {"a": "'"}, "é" * 300, []]
)
def test_names_are_safe_for_a_shell_and_valid_for_a_run(value: Any) -> None:
    """A folder's name is pasted into shells; the run's own name is checked by the settings."""
    name = point_name({"image_set.classes": value, "seed": 3})
    assert shlex.quote(name) == name or "," in name  # a comma outside braces means nothing to a shell
    assert re.fullmatch(r"[A-Za-z0-9._=,+-]{1,255}", name)
    assert from_resolved({**tiny.TINY, "name": run_name(name)}).name == run_name(name)


def test_different_values_have_different_names() -> None:
    """Also those whose unsafe characters become the same safe ones, and names that are cut."""
    values = ["a b", "a/b", "a_b", ["a", "b"], [["a"], "b"], {"a": 1}, {"a": 2}, 0.1, 0.11, "x" * 400, "x" * 401]
    assert len({point_name({"key": value}) for value in values}) == len(values)
    assert spelled(1) == spelled(1.0) == "1"


def test_a_grid_is_a_product_and_zipped_lists_go_together(place: Path) -> None:
    """In a file and on the command line; the latter replaces what the file says of a key."""
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
    (["small.yaml", "image_set.colour=1,2"], "image_set.colour: unknown key"),
    (["small.yaml", "temperature=1,1.0"], "the point temperature=1,seed=0 stands twice"),
    (["small.yaml", "temperature=1", "temperature=2"], "temperature: given twice"),
    (["small.yaml", "name=a,b"], "name: a point is named after its values"),
    (["small.yaml", "a b=1"], "'a b' is no key"),
    (["small.yaml", "seed=0:200", "batch.size=100:300"], "40,000 points; at most 10,000"),
    (["small.yaml", "--zip", "seed=0:2", "temperature=1,2,3"], "seed has 2, temperature has 3"),
    (["small.yaml", "seed=0:2", "--index", "2"], "--index: got 2; allowed is 0 to 1"),
    (
        ["small.yaml", "--analyses", "weigth_gap.py"],
        "analyses: got 'weigth_gap.py'; it begins with one of alignment.py",
    ),
    (["small.yaml", "--analyses", "quality.py --run x"], "leave --run to the sweep"),
    (["small.yaml", "--jobs", "0"], "--jobs"),
    (["small.yaml", "--name", "taken"], "--name: 'runs/taken' is the folder of a run"),
    (["bad0.yaml"], "bad0.yaml: gird: unknown key; did you mean 'grid'"),
    (["bad1.yaml"], "bad1.yaml: figure.metric: unknown key; did you mean 'metrics'"),
    (["bad2.yaml"], "factor: got 'epochs'; keys with several values are temperature"),
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


@pytest.mark.parametrize(("arguments", "part"), BAD)
def test_bad_input_is_one_line_and_status_2(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    """All points are checked before the first begins."""
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


def test_the_list_numbers_the_points_of_an_array(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each index does its point alone, and writes nothing that another index writes."""
    done: list[str] = []
    monkeypatch.setattr(sweep_jobs, "train_and_analyse", lambda _sweep, point, *_: done.append(point.name) or "")
    command = [str(place / "small.yaml"), "temperature=0.1,1", "seed=0:2", "--runs", str(place / "array")]
    assert sweep.main([*command, "--list"]) == 0
    listed = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    assert [number for number, _ in listed] == ["0", "1", "2", "3"]
    for number, _ in listed:
        assert sweep.main([*command, "--index", number]) == 0
    assert done == [name for _, name in listed]
    assert not (place / "array").exists()


def test_a_broken_point_goes_on_and_a_failed_one_stops_no_other(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In subprocesses, as a user runs it: one was broken off, one crashes as code in C does."""
    monkeypatch.chdir(place)
    hopeless, broken = points(read_sweep(Path("small.yaml"), ["seed=0:2"]))
    train(broken, until_step=2)
    real, crash = sweep_jobs._python, "import os; print('last words', flush=True); os.abort()"
    crashing = [sys.executable, "-c", crash]
    monkeypatch.setattr(sweep_jobs, "_python", lambda words: crashing if str(hopeless.folder) in words else real(words))
    assert sweep.main(["small.yaml", "seed=0:2", "--jobs", "2", "--analyses", "weight_gap.py"]) == 1
    said = capfd.readouterr()
    assert "seed=1: continues" in said.out
    assert "[2/2]" in said.out
    assert re.search(r"seed=0 failed: last words \(.*seed=0\.log\)", said.err)
    assert "continuing after step 2" in broken.log().read_text()
    assert [is_finished(point) for point in (hopeless, broken)] == [False, True]
    rows = pd.read_csv("runs/small_sweep/sweep.csv")
    assert (set(rows["seed"]), set(rows["table"])) == ({1}, {"weight_gap"})


def test_finished_points_are_left_alone(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second call trains nothing, and only collects and draws."""
    before = {path: path.stat().st_mtime_ns for path in measured.rglob("snapshots/*")}
    command = [str(measured.parents[1] / "small.yaml"), "seed=0:2", "temperature=1,0.1", "--name", measured.name]
    assert sweep.main([*command, "--runs", str(measured.parent), "--analyses"]) == 0
    assert capsys.readouterr().out.count("finished before") == 4
    assert {path: path.stat().st_mtime_ns for path in measured.rglob("snapshots/*")} == before
    assert len(pd.read_csv(measured / "sweep.csv")) == len(collect(measured))


def test_other_settings_and_a_lost_last_snapshot_are_not_finished(place: Path) -> None:
    """Otherwise a sweep would show runs that are not what its settings say."""
    point = points(read_sweep(place / "small.yaml", ["temperature=0.3"], runs=place / "finished"))[0]
    train(point)
    assert is_finished(point)
    for key, value in (("temperature", 0.4), ("epochs", 2)):
        assert not is_finished(point._replace(settings={**point.settings, key: value}))
    assert is_finished(point._replace(settings={**point.settings, "threads": 2}))  # not part of what is computed
    manifest = point.folder / "snapshots/manifest.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    assert not is_finished(point)


def read(path: Path, *exact: str) -> pd.DataFrame:
    return pd.read_csv(path, converters=dict.fromkeys(exact, lambda cell: float(cell or "nan")))


def test_the_table_holds_the_values_of_the_runs_to_the_last_bit(measured: Path) -> None:
    """Looked up in the runs' own tables one by one, from the file as a reader of sweep.csv has it."""
    collect(measured).to_csv(measured / "sweep.csv", index=False)
    rows = read(measured / "sweep.csv", "value")
    assert set(zip(rows["temperature"], rows["seed"], strict=True)) == {(t, s) for t in (0.1, 1) for s in (0, 1)}
    assert (rows.groupby("run")[["temperature", "seed"]].nunique() == 1).all(axis=None)
    for run, part in rows.groupby("run"):
        assert Path(run).name == f"temperature={part['temperature'].iloc[0]:g},seed={part['seed'].iloc[0]}"
        scores = read(Path(run) / "analysis/test_alignment.csv", "value")
        mine = part[part["table"] == "test_alignment"]
        keys = ["epoch", "split", "reference", "arm", "layer", "metric", "value", "samples"]
        assert mine[keys].to_numpy().tolist() == scores[keys].to_numpy().tolist()
        gaps = read(Path(run) / "analysis/weight_gap.csv", "gap", "distance", "cosine", "arm_drift")
        mine = part[(part["table"] == "weight_gap") & (part["layer"] == "global")].set_index(["metric", "epoch"])
        for _, gap in gaps[gaps["layer"] == "global"].iterrows():
            for column in ("gap", "distance", "cosine", "arm_drift"):
                assert mine.loc[(column, gap["epoch"]), "value"] == gap[column]


def test_mean_and_spread_are_those_over_the_seeds(measured: Path) -> None:
    """The standard deviation is that of a sample; one seed has none."""
    rows = collect(measured)
    cka = rows[(rows["metric"] == "cka") & (rows["epoch"] == 1)]
    for row in spread(cka, ["temperature"]).itertuples():
        values = cka[cka["temperature"] == row.temperature]["value"].to_numpy(dtype=float)
        assert row.seeds == len(values) == 2
        assert row.mean == pytest.approx(np.mean(values), rel=1e-14)
        assert row.sd == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert spread(cka[cka["seed"] == 0], ["temperature"])["sd"].isna().all()


def test_the_figures_draw_mean_and_band_of_the_last_epoch(measured: Path) -> None:
    """Read from the lines themselves; and the files lie in figures/ under the factor's name."""
    rows = collect(measured)
    shown = sweep_figures._shown(json.loads((measured / "sweep.json").read_text()), rows)
    panels = {metric: sweep_figures._panel(rows, metric, shown.figure) for metric in ("cka", "weight_gap")}
    figure = sweep_figures._figure(shown, sweep_figures._at_epoch(panels, "last"), sweep_figures._against_factor)
    axes = figure.axes[0]
    wanted = spread(rows[(rows["metric"] == "cka") & (rows["epoch"] == 1)], ["temperature"]).sort_values("temperature")
    assert axes.lines[0].get_xydata().tolist() == wanted[["temperature", "mean"]].to_numpy().tolist()
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx((wanted["mean"] - wanted["sd"]).min())
    assert heights.max() == pytest.approx((wanted["mean"] + wanted["sd"]).max())
    written = sweep_figures.draw(measured, rows)
    assert [path.name for path in written] == ["temperature.png", "temperature.pdf", "epochs.png", "epochs.pdf"]
    assert all(path.stat().st_size > 5000 for path in written)
    with pytest.raises(ValueError, match="no rows of 'nccc'"):
        sweep_figures._panel(rows, "nccc", shown.figure)


def test_a_stop_ends_the_children_and_begins_no_further_point(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child gets SIGTERM, on which train.py saves its state; the points behind it never start."""
    begun: list[str] = []
    ended: list[int] = []

    def sleep(_sweep: Any, point: Point, children: Children, _say: Any) -> str:
        begun.append(point.name)
        ended.append(children.run([sys.executable, "-c", "import time; time.sleep(60)"], place / "sleep.log"))
        return ""

    monkeypatch.setattr(sweep_jobs, "train_and_analyse", sleep)
    definition = read_sweep(place / "small.yaml", ["seed=0:3"])
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    started = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_points(definition, points(definition), 1, lambda _: None)
    assert time.monotonic() - started < 30
    assert (begun, ended) == (["seed=0"], [-signal.SIGTERM])


def test_the_last_line_of_a_log_is_that_with_text(tmp_path: Path) -> None:
    """Of a traceback it is the error."""
    log = tmp_path / "log"
    log.write_text("one\nValueError: two \n\n")
    assert last_line(log) == "ValueError: two"
    log.write_text("")
    assert last_line(log) == "no output"
