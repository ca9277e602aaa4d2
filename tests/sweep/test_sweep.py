"""Sweeps: finished and interrupted points, failures, the collected table, its spread and its figures."""

import errno
import os
import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from support import forked, tiny

from coupled.analysis import alignment, weight_gap
from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.selections.styles import arm_styles
from coupled.analysis.tables import newest, whole_encoder
from coupled.config.schema import from_resolved
from coupled.coordinator import Coordinator
from coupled.parallel.process_group import process_group
from coupled.storage.run_lock import run_lock
from coupled.sweep import figures as sweep_figures
from coupled.sweep import jobs as sweep_jobs
from coupled.sweep import panels as sweep_panels
from coupled.sweep import program as sweep
from coupled.sweep.jobs import Children, is_finished, last_line, run_points
from coupled.sweep.points import Point, points, read_sweep
from coupled.sweep.tables import TABLES, collect, details, spread, tidy, write_definition

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


def train(point: Point, max_steps: int | None = None) -> None:
    """Train a point in this process, as its subprocess would."""
    settings = from_resolved(point.settings)
    with process_group("cpu", settings.timeout_seconds, 1) as group:
        Coordinator(settings, group, point.folder).train(max_steps=max_steps)


@pytest.fixture(scope="module")
def measured(place: Path) -> Path:
    """The folder of a sweep over two temperatures and two seeds, trained and measured in this process."""
    definition = read_sweep(place / "small.yaml", ["temperature=0.1,1", "seed=0:1"], runs=place / "measured")
    every = points(definition)
    write_definition(definition, every)
    deterministic = torch.are_deterministic_algorithms_enabled()
    for point in every:
        train(point)
        weight_gap.main(["--run-dir", str(point.folder)])
        alignment.main(["--run-dir", str(point.folder), "--split", "test", "--layers", "h", "--metrics", "cka", "rsa"])
    torch.use_deterministic_algorithms(deterministic)
    return definition.folder


def test_list_prints_the_index_of_each_point_of_a_job_array(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each index trains only its point and writes no file that another index writes."""
    done: list[str] = []
    monkeypatch.setattr(sweep_jobs, "train_and_analyse", lambda _sweep, point, *_: done.append(point.name) or "")
    command = [str(place / "small.yaml"), "temperature=0.1,1", "seed=0:1", "--runs-dir", str(place / "array")]
    assert sweep.main([*command, "--list"]) == 0
    listed = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    assert [number for number, _ in listed] == ["0", "1", "2", "3"]
    for number, _ in listed:
        assert sweep.main([*command, "--index", number]) == 0
    assert done == [name for _, name in listed]
    assert not [path for path in (place / "array").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_an_interrupted_point_is_resumed_and_a_failure_does_not_stop_other_points(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In processes, as a user runs it: one point was interrupted, one aborts like a crash in C code."""
    monkeypatch.chdir(place)
    hopeless, broken = points(read_sweep(Path("small.yaml"), ["seed=0:1"]))
    train(broken, max_steps=2)
    real, crash = sweep_jobs.child_command, "import os; print('last words', flush=True); os.abort()"
    crashing = ["-c", crash]
    aborts = str(hopeless.folder)
    monkeypatch.setattr(
        sweep_jobs,
        "child_command",
        lambda *words: [str(forked.python()), *(crashing if aborts in words else real(*words)[1:])],
    )
    assert sweep.main(["small.yaml", "seed=0:1", "--jobs", "2", "--analyses", "weight-gap"]) == 1
    said = capfd.readouterr()
    assert "seed=1: resuming" in said.out
    assert "[2/2]" in said.out
    assert re.search(r"seed=0 failed: last words \(.*seed=0\.log\)", said.err)
    assert "continuing after step 2" in broken.log().read_text()
    assert [is_finished(point) for point in (hopeless, broken)] == [False, True]
    rows = pd.read_csv("runs/small_sweep/sweep.csv")
    assert (set(rows["seed"]), set(rows["table"])) == ({1}, {"weight_gap"})


def test_an_incomplete_training_with_status_0_is_a_failure(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped train.py exits with status 0, but its run is incomplete and must not be analysed."""
    stopped = [sys.executable, "-c", "print('stopped after step 2')"]
    monkeypatch.setattr(sweep_jobs, "child_command", lambda *_: stopped)
    definition = read_sweep(place / "small.yaml", runs=place / "early")
    (point,) = points(definition)
    failed = run_points(definition, [point], 1, lambda _: None)
    assert failed == {"seed=0": f"stopped after step 2 ({point.log()})"}
    assert point.log().read_text().count("stopped") == 1  # no analysis began


def test_finished_points_are_not_trained_again(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second call only collects the table and draws the figures."""
    before = {path: path.stat().st_mtime_ns for path in measured.rglob("snapshots/*")}
    command = [str(measured.parents[2] / "small.yaml"), "seed=0:1", "temperature=1,0.1", "--name", measured.name]
    assert sweep.main([*command, "--runs-dir", str(measured.parent), "--analyses"]) == 0
    assert capsys.readouterr().out.count("already finished") == 4
    assert {path: path.stat().st_mtime_ns for path in measured.rglob("snapshots/*")} == before
    assert len(pd.read_csv(measured / "sweep.csv")) == len(collect(measured))


def test_a_point_with_other_settings_or_without_its_last_snapshot_is_not_finished(place: Path) -> None:
    """Otherwise a sweep would include runs that do not match its settings."""
    point = points(read_sweep(place / "small.yaml", ["temperature=0.3"], runs=place / "finished"))[0]
    train(point)
    assert is_finished(point)
    for key, value in (("seed", 4), ("epochs", 2)):
        assert not is_finished(point._replace(settings={**point.settings, key: value}))
    assert is_finished(point._replace(settings={**point.settings, "num_threads": 2}))  # does not change the results
    manifest = point.folder / "snapshots/manifest.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    assert not is_finished(point)


def read(path: Path, *exact: str) -> pd.DataFrame:
    return pd.read_csv(path, converters=dict.fromkeys(exact, lambda cell: float(cell or "nan")))


def test_the_sweep_table_has_the_exact_values_of_the_runs(measured: Path) -> None:
    """Each value of sweep.csv is compared with the table of its run."""
    collect(measured).to_csv(measured / "sweep.csv", index=False)
    rows = read(measured / "sweep.csv", "value")
    assert set(zip(rows["temperature"], rows["seed"], strict=True)) == {(t, s) for t in (0.1, 1) for s in (0, 1)}
    assert (rows.groupby("run")[["temperature", "seed"]].nunique() == 1).all(axis=None)
    for run, part in rows.groupby("run"):
        assert Path(run).name == f"temperature={part['temperature'].iloc[0]:g},seed={part['seed'].iloc[0]}"
        scores = read(Path(run) / "analysis/test_alignment.csv", "value")
        mine = part[part["table"] == "test_alignment"]
        keys = ["epoch", "split", "reference", "arm", "module", "metric", "value", "num_images"]
        assert mine[keys].to_numpy().tolist() == scores[keys].to_numpy().tolist()
        gaps = read(Path(run) / "analysis/weight_gap.csv", "gap", "distance", "cosine", "arm_drift")
        mine = whole_encoder(part[part["table"] == "weight_gap"], "global").set_index(["metric", "epoch"])
        for _, gap in whole_encoder(gaps, "global").iterrows():
            for column in ("gap", "distance", "cosine", "arm_drift"):
                assert mine.loc[(column, gap["epoch"]), "value"] == gap[column]


def test_the_newest_of_duplicate_rows_is_used() -> None:
    """A table keeps rows of replaced snapshots. With both rows the spread would be too small."""
    rows = pd.DataFrame(
        {"epoch": 1, "arm": "nscl", "metric": "cka", "value": [0.1, 0.9], "num_images": 9, "images_digest": ["a", "b"]}
    )
    assert tidy(newest(rows, "test_alignment.csv"), TABLES["test_alignment"])["value"].tolist() == [0.9]


def test_classifiers_of_different_trainings_are_told_apart() -> None:
    """Without rate and protocol their accuracies would be averaged as if they were seeds."""
    row = {"epoch": 1, "split": "test", "arm": "cl", "module": "h", "optimizer": "sgd", "protocol": "epochs=2"}
    rows = pd.DataFrame([{**row, "lr": lr, "metric": "top1", "value": lr / 10} for lr in (1.0, 5.0)])
    found = tidy(newest(rows, "linear_evaluation.csv"), TABLES["linear_evaluation"])
    assert found["value"].tolist() == [0.1, 0.5]
    assert details(found).tolist() == ["sgd lr=1 epochs=2", "sgd lr=5 epochs=2"]
    of_task = pd.DataFrame([{"epoch": 1, "arm": "cl", "module": "h", "task": "rotation", "value": 0.5}])
    assert tidy(of_task, TABLES["pretext"])["metric"].tolist() == ["rotation"]


def test_mean_and_spread_are_those_over_the_seeds(measured: Path) -> None:
    """The standard deviation uses n - 1; it is missing for one seed."""
    rows = collect(measured)
    cka = rows[(rows["metric"] == "cka") & (rows["epoch"] == 1)]
    for row in spread(cka, ["temperature"]).itertuples():
        values = cka[cka["temperature"] == row.temperature]["value"].to_numpy(dtype=float)
        assert row.seeds == len(values) == 2
        assert row.mean == pytest.approx(np.mean(values), rel=1e-14)
        assert row.sd == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert spread(cka[cka["seed"] == 0], ["temperature"])["sd"].isna().all()


def test_figures_show_mean_and_band_of_the_last_epoch(measured: Path) -> None:
    """Checks the drawn lines, and that the files are named after the factor."""
    rows = collect(measured)
    shown = sweep_panels.shown(measured, rows)
    panels = {metric: sweep_panels.rows_of(rows, metric, shown.figure) for metric in ("cka", "weight_gap")}
    figure = sweep_figures.grid(shown, sweep_panels.at_epoch(panels, "last"), sweep_panels.against_factor)
    axes = figure.axes[0]
    wanted = spread(rows[(rows["metric"] == "cka") & (rows["epoch"] == 1)], ["temperature"]).sort_values("temperature")
    assert axes.lines[0].get_xydata().tolist() == wanted[["temperature", "mean"]].to_numpy().tolist()
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx((wanted["mean"] - wanted["sd"]).min())
    assert heights.max() == pytest.approx(min(1, (wanted["mean"] + wanted["sd"]).max()))  # CKA is at most 1
    written = sweep_figures.draw(measured, rows)
    assert [path.name for path in written] == ["temperature.png", "temperature.pdf", "epochs.png", "epochs.pdf"]
    assert all(path.stat().st_size > 5000 for path in written)
    with pytest.raises(ValueError, match="no rows of 'nccc'"):
        sweep_panels.rows_of(rows, "nccc", shown.figure)


def test_each_further_key_adds_rows_of_panels(place: Path) -> None:
    """Values of different learning-rate rules must not be averaged."""
    both = ["batch.size=64,128", "optimizer.lr_scaling=linear,sqrt", "seed=0:1"]
    definition = read_sweep(place / "small.yaml", both, runs=place / "rows")
    every = points(definition)
    write_definition(definition, every)
    made = [
        {**point.values, "run": point.name, "table": "test_alignment", "epoch": 1, "split": "test", "reference": "cl"}
        | {"arm": "nscl", "module": "h", "metric": "cka", "num_images": 9, "value": number / 10}
        for number, point in enumerate(every)
    ]
    shown = sweep_panels.shown(definition.folder, pd.DataFrame(made))
    panels = {"cka": sweep_panels.rows_of(pd.DataFrame(made), "cka", shown.figure)}
    figure = sweep_figures.grid(shown, panels, sweep_panels.against_factor)
    assert [axes.get_ylabel() for axes in figure.axes] == [f"optimizer.lr_scaling = {r}" for r in ("linear", "sqrt")]
    drawn = [axes.lines[0].get_ydata().tolist() for axes in figure.axes]
    assert np.allclose(drawn, [[0.05, 0.45], [0.25, 0.65]])


def test_points_with_one_value_of_the_factor_are_not_averaged() -> None:
    """In a zip group such as weight decays [0.1, 0, 0] two points may differ only in another key of the group."""
    group = {"optimizer.weight_decay": ["0.1", "0", "0"], "optimizer.head_weight_decay": ["null", "null", "0.1"]}
    definition = {"factor": "optimizer.weight_decay"}
    assert sweep_panels.further_keys({**definition, "groups": [group]}) == ["optimizer.head_weight_decay"]
    distinct = {**group, "optimizer.weight_decay": ["0.1", "0", "0.2"]}
    assert sweep_panels.further_keys({**definition, "groups": [distinct]}) == []


def test_sigterm_ends_the_children_and_starts_no_further_point(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child process gets SIGTERM, on which train.py saves its state. Later points do not start."""
    monkeypatch.chdir(place)
    begun: list[str] = []
    ended: list[int] = []

    def sleep(_sweep: Any, point: Point, children: Children, _say: Any) -> str:
        begun.append(point.name)
        ended.append(children.run([sys.executable, "-c", "import time; time.sleep(60)"], place / "sleep.log"))
        return ""

    monkeypatch.setattr(sweep_jobs, "train_and_analyse", sleep)
    definition = read_sweep(place / "small.yaml", ["seed=0:2"])
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    started = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_points(definition, points(definition), 1, lambda _: None)
    assert time.monotonic() - started < 30
    assert (begun, ended) == (["seed=0"], [-signal.SIGTERM])


def outcome(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """Let every point end with this error text (empty: success) and without a table."""
    monkeypatch.setattr(sweep_jobs, "train_and_analyse", lambda *_: wrong)


def test_sweeps_of_one_file_over_different_keys_have_separate_tables(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each sweep has a folder named after its keys. A sweep of other keys into it with --name is rejected."""
    outcome(monkeypatch, "")
    base = [str(place / "small.yaml"), "--runs-dir", str(tmp_path), "--analyses"]
    for key in ("temperature=0.1,1", "batch.size=64,128", "seed=0:1"):
        assert sweep.main([base[0], key, *base[1:]]) == 0
    folders = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("sweep.json")}
    assert folders == {"small_sweep", "small_sweep/temperature", "small_sweep/batch.size"}
    assert sweep.main([base[0], "temperature=0.1,1", "batch.size=64", *base[1:]]) == 0
    assert (tmp_path / "small_sweep/batch.size,temperature/sweep.csv").is_file()
    before = (tmp_path / "small_sweep/temperature/sweep.json").read_bytes()
    capsys.readouterr()
    assert sweep.main([base[0], "batch.size=64,128", "--name", "small_sweep/temperature", *base[1:]]) == 2
    assert (
        "temperature' has the keys temperature, this one has batch.size; choose another name" in capsys.readouterr().err
    )
    assert (tmp_path / "small_sweep/temperature/sweep.json").read_bytes() == before


def test_concurrent_sweeps_cannot_share_a_folder_or_a_point(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second sweep gets an error with the process that holds the lock. Tasks of a job array share the folder."""
    outcome(monkeypatch, "")
    command = [str(place / "small.yaml"), "temperature=0.1,1", "--runs-dir", str(tmp_path), "--analyses"]
    folder = tmp_path / "small_sweep/temperature"
    with run_lock(folder, "--name"):
        assert sweep.main(command) == 2
        held_by = f"is being written by process {os.getpid()} on "
        assert f"coupled sweep: --name: '{folder}' {held_by}" in capsys.readouterr().err
        assert not (folder / "sweep.json").exists()
        assert sweep.main([*command, "--index", "0"]) == 0
    capsys.readouterr()
    with run_lock(folder / "temperature=0.1,seed=0.running", "--index"):
        assert sweep.main([*command, "--index", "0"]) == 1
        assert held_by in capsys.readouterr().err
        assert sweep.main([*command, "--index", "1"]) == 0
    assert sweep.main(command) == 0
    assert {path.name for path in folder.iterdir()} == {"sweep.json", "sweep.csv"}


def test_a_sweep_of_failed_points_lists_all_failures(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There are no rows to draw."""
    outcome(monkeypatch, "out of memory (a.log)")
    assert sweep.main([str(place / "small.yaml"), "temperature=0.1,1", "--runs-dir", str(tmp_path)]) == 1
    said = capsys.readouterr()
    failed = [f"coupled sweep: temperature={t},seed=0 failed: out of memory (a.log)" for t in ("0.1", "1")]
    assert said.err.splitlines() == [
        "coupled sweep: no figure: figure.metrics: no rows of 'cka' (layer h, test images, reference cl); "
        "check `analyses` and `figure`",
        *failed,
    ]
    assert list(pd.read_csv(tmp_path / "small_sweep/temperature/sweep.csv"))[:2] == ["temperature", "seed"]


def test_analyses_of_the_command_line_do_not_fail_for_the_figure_of_the_file(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/papers.md and headers of configs have such commands; a status of 1 would mean that a point failed."""
    outcome(monkeypatch, "")
    command = [str(place / "small.yaml"), "temperature=0.1,1", "--runs-dir", str(tmp_path)]
    assert sweep.main([*command, "--analyses", "quality"]) == 0
    assert "coupled sweep: no figure: figure.metrics: no rows of 'cka'" in capsys.readouterr().err
    assert sweep.main(command) == 1


def test_a_damaged_table_is_reported_after_the_failed_points(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names file and row. The failed points are listed before it."""
    outcome(monkeypatch, "no luck")
    shutil.copytree(measured, tmp_path / "copy")
    path = tmp_path / "copy/temperature=1,seed=0/analysis/test_alignment.csv"
    path.write_text(path.read_text().replace("1,test", "1e18,test", 1))
    command = [str(measured.parents[2] / "small.yaml"), "seed=0:1", "temperature=1,0.1", "--name", "copy"]
    assert sweep.main([*command, "--runs-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 5
    assert error[-1].startswith(f"coupled sweep: {path}: row ")
    assert "epoch: got '1e18', expected a whole number from 0 to 1,000,000" in error[-1]


@pytest.mark.parametrize("call", ["mkdir", "fsync"])
def test_a_full_disk_is_one_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: str
) -> None:
    """Status 1 if a folder cannot be created or a table cannot be written completely."""
    outcome(monkeypatch, "")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([str(tmp_path)] if call == "mkdir" else []))

    monkeypatch.setattr(os, call, full)
    assert sweep.main([str(place / "small.yaml"), "temperature=0.1,1", "--runs-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"coupled sweep: {tmp_path}")
    assert "No space left on device" in error


def test_last_line_is_the_last_line_with_text(tmp_path: Path) -> None:
    """In a traceback this is the error."""
    log = tmp_path / "log"
    log.write_text("one\nValueError: two \n\n")
    assert last_line(log) == "ValueError: two"
    log.write_text("")
    assert last_line(log) == "no output"


def test_runs_on_test_sets_of_different_sizes_are_all_drawn() -> None:
    """The largest sample of each run is used, because the test sets may differ in size."""
    where = {"table": "test_alignment", "epoch": 1, "split": "test", "reference": "cl", "arm": "nscl", "module": "h"}
    made = [
        {**where, "metric": "cka", "run": run, "num_images": samples, "value": value}
        for run, samples, value in (("a", 360, 0.5), ("a", 50, 0.1), ("b", 400, 0.6), ("b", 50, 0.1))
    ]
    figure = {"layer": "h", "split": "test", "reference": "cl"}
    assert list(sweep_panels.rows_of(pd.DataFrame(made), "cka", figure)["value"]) == [0.5, 0.6]


def test_rows_of_panels_share_an_axis_that_includes_all_values() -> None:
    """The axis of the weight gap begins at 0 and ends above the largest value of all rows."""
    where = {"table": "weight_gap", "epoch": 1, "reference": "cl", "arm": "nscl", "aggregate": "mean", "metric": "gap"}
    made = [
        {**where, "run": f"{rule}{size}", "seed": 0, "num_images": 0, "rule": rule, "size": size, "value": value}
        for rule, values in (("low", (0.1, 0.2)), ("high", (0.8, 0.9)))
        for size, value in zip((1, 2), values, strict=True)
    ]
    source = FigureTables(Path(), "cl", arm_styles(["cl", "nscl"]), [])
    about = {"reference": "cl", "layer": "h", "split": "test", "arm": "nscl"}
    shown = sweep_panels.Shown("size", ["rule"], [1, 2], source, about)
    figure = sweep_figures.grid(shown, {"weight_gap": pd.DataFrame(made)}, sweep_panels.against_factor)
    for axes in figure.axes:
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] > 0.9
