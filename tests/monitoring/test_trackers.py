"""Trackers: what each receives, how a resumed run continues, and that none can stop or change training."""

import json
import shutil
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pandas
import pytest
from support import tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from coupled import train as program
from coupled.monitoring import trackers
from coupled.monitoring.trackers.feed import Feed
from coupled.monitoring.trackers.points import Layout

SMALL: dict[str, Any] = {"arms": {"cl": "dcl", "nscl": "nscl"}, "batch": {"size": 720}}  # 2 steps an epoch


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without a tracker."""
    run = tmp_path_factory.mktemp("plain") / "run"
    tiny.train(run, **SMALL)
    return run


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The series of TensorBoard's files as its own reader sees them."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expected(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The series that the tables of a run of two steps an epoch give."""
    steps, epochs = pandas.read_csv(run / "steps.csv"), pandas.read_csv(run / "epochs.csv")
    series = {name: list(zip(steps["step"], steps[name], strict=True)) for name in ("epoch", "lr")}
    for arm in SMALL["arms"]:
        for column in ("loss", "grad_norm", "skipped_anchors"):
            series[f"{column}/{arm}"] = list(zip(steps["step"], steps[f"{arm}_{column}"], strict=True))
        of_arm = epochs[epochs["arm"] == arm]
        for column, name in (("loss", "epoch_loss"), ("seconds", "seconds"), ("images_per_second",) * 2):
            series[f"{name}/{arm}"] = list(zip(of_arm["epoch"] * 2, of_arm[column], strict=True))
    return series


def assert_series(found: dict[str, list[tuple[int, float]]], run: Path) -> None:
    wanted = expected(run)
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6), name


def test_tensorboard_has_every_row_once_after_a_stop_a_kill_and_a_resume(plain: Path, tmp_path: Path) -> None:
    """A curve must not have duplicate or missing steps; the run itself does not change."""
    run = tmp_path / "run"
    tiny.train(run, max_steps=1, **SMALL)  # a tracker may be added later: it gets the steps before, too
    tiny.train(run, max_steps=3, resume=True, trackers=["tensorboard"], **SMALL)
    note = json.loads((run / "trackers/tensorboard.json").read_text())
    assert (note["steps.csv"], note["epochs.csv"]) == (3, 1)
    killed = sorted((run / "checkpoints").glob("step_*"))[-1]  # as if the process had died before this checkpoint
    for path in sorted(killed.rglob("*"), reverse=True):
        path.unlink()
    killed.rmdir()
    tiny.train(run, resume=True, trackers=["tensorboard"], **SMALL)
    assert_series(scalars(run), run)
    assert tiny.snapshot_bytes(run) == tiny.snapshot_bytes(plain)
    assert (run / "steps.csv").read_bytes() == (plain / "steps.csv").read_bytes()


class FakeWandB(types.ModuleType):
    """The parts of wandb that are used; a run keeps its rows by id, and refuses to go back, as the service does."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None, origin="fake")
        self.runs: dict[str, dict[int, dict[str, float]]] = {}
        self.opened: list[Any] = []
        self.fails_at: int | None = None

    def Settings(self, **options: Any) -> dict[str, Any]:  # noqa: N802 - its name there
        return options

    def init(self, **options: Any) -> Any:
        rows = self.runs.setdefault(options["id"], {})
        (folder := Path(options["dir"]) / "wandb/files").mkdir(parents=True, exist_ok=True)

        def log(values: dict[str, float], step: int) -> None:
            if step == self.fails_at:
                raise ConnectionError("the service\nhas gone")
            assert step >= max(rows, default=0), "steps must increase"
            assert not values.keys() & rows.get(step, {}).keys(), "twice"
            rows.setdefault(step, {}).update(values)

        run = types.SimpleNamespace(log=log, dir=str(folder), offline=True, exits=[], options=options)
        run.finish = lambda exit_code: run.exits.append(exit_code)
        run.config = types.SimpleNamespace(update=lambda tree, allow_val_change: setattr(run, "settings", tree))
        self.opened.append(run)
        return run


def series_of(rows: dict[int, dict[str, float]]) -> dict[str, list[tuple[int, float]]]:
    names = dict.fromkeys(name for values in rows.values() for name in values)
    return {name: [(s, v[name]) for s, v in sorted(rows.items()) if name in v] for name in names}


def test_a_failing_tracker_warns_once_and_receives_missing_rows_on_resume(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An outage of the service must not stop the run or lose rows; the run keeps one id."""
    wandb, run = FakeWandB(), tmp_path / "run"
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    wandb.fails_at = 2
    tiny.train(run, max_steps=3, trackers=["wandb"], **SMALL)
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: tracker")]
    assert warned == [
        "warning: tracker wandb: ConnectionError: the service has gone; training continues without it, and --resume"
        " sends it the missing rows"
    ]
    wandb.fails_at = None
    tiny.train(run, resume=True, trackers=["wandb"], **SMALL)
    (rows,) = wandb.runs.values()
    assert_series(series_of(rows), run)
    assert wandb.opened[1].exits == [0]
    assert wandb.opened[1].options["resume"] == "allow"
    assert wandb.opened[1].settings["trackers"] == ["wandb"]
    assert json.loads((run / "wandb/files/run.json").read_text()) == json.loads((run / "run.json").read_text())
    assert tiny.snapshot_bytes(run) == tiny.snapshot_bytes(plain)
    assert (run / "steps.csv").read_bytes() == (plain / "steps.csv").read_bytes()


class FakeMLflow(types.ModuleType):
    """The parts of MLflow that are used: a store of one experiment."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.__spec__ = ModuleSpec("mlflow", None, origin="fake")
        self.entities = types.ModuleType("mlflow.entities")
        self.entities.Metric = lambda key, value, timestamp, step: (step, key, value)  # type: ignore[attr-defined]
        self.entities.Param = lambda key, value: (key, value)  # type: ignore[attr-defined]
        self.metrics: dict[int, dict[str, float]] = {}
        self.params: dict[str, str] = {}
        self.artifacts: list[str] = []
        self.states: list[str] = []
        self.runs = 0

    def get_tracking_uri(self) -> str:
        return "sqlite:///there.db"

    def MlflowClient(self, uri: str) -> Any:  # noqa: N802 - its name there
        assert uri == "sqlite:///there.db"
        return self

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.runs += 1
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=f"{experiment}-{run_name}-{self.runs}"))

    def update_run(self, run_id: str, status: str) -> None:
        assert run_id == "coupled-tiny-1"
        self.states.append(status)

    def set_terminated(self, run_id: str, status: str) -> None:
        self.update_run(run_id, status)

    def log_artifact(self, run_id: str, path: str) -> None:
        self.artifacts.append(Path(path).name)

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        for step, key, value in metrics:
            assert key not in self.metrics.setdefault(step, {}), "twice"
            self.metrics[step][key] = value
        assert len(params) <= 100
        self.params |= dict(params)


def test_mlflow_keeps_one_run_with_settings_and_description_over_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run continues the same curves, in the store of its first start."""
    mlflow, run = FakeMLflow(), tmp_path / "run"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", mlflow.entities)
    tiny.train(run, max_steps=1, trackers=["mlflow"], **SMALL)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "sqlite:///elsewhere.db")
    tiny.train(run, resume=True, trackers=["mlflow"], **SMALL)
    assert_series(series_of(mlflow.metrics), run)
    assert mlflow.states == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    assert mlflow.params["optimizer.base_lr"] == "0.06"
    assert mlflow.params["arms.cl.objective"] == "dcl"
    assert mlflow.artifacts == ["run.json", "run.json"]


def test_a_missing_package_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After an hour of training it would be too late; a folder `wandb`, as wandb itself leaves, is no package."""
    monkeypatch.setitem(trackers.PACKAGES, "wandb", "not_installed_here")
    (tmp_path / "not_installed_here").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(f"{tiny.TINY_YAML}trackers: [wandb]\n")
    assert program.main(["--config", str(config), "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.endswith("trackers: wandb needs a package: pip install not_installed_here\n")
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused_and_trackers_may_change_on_resume() -> None:
    """A tracker changes no result, so it may change on resume."""
    with pytest.raises(ValueError, match=r"trackers\.0: got 'comet'; allowed are 'tensorboard', 'wandb' or 'mlfl"):
        tiny.tiny_settings(trackers=["comet"])
    assert tiny.tiny_settings(trackers=["wandb"]).sha256() == tiny.tiny_settings().sha256()


def test_a_run_that_fails_is_closed_as_failed(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard shows which of a hundred runs has failed."""
    monkeypatch.setitem(sys.modules, "wandb", wandb := FakeWandB())
    shutil.copy(plain / "run.json", tmp_path)
    layout = Layout(list(SMALL["arms"]), ("loss",), steps_per_epoch=2)
    with pytest.raises(FloatingPointError), Feed(["wandb"], tmp_path, layout, 0, print, print):
        raise FloatingPointError
    assert wandb.opened[0].exits == [1]
