"""The trackers. The package of a tracker is imported when the tracker is opened.

`rewinds` says whether the end of a series can be removed and sent again. `id` and `store` are kept in the run folder.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from coupled.monitoring.trackers.points import Point

Status = Literal["complete", "stopped", "failed"]
PROJECT = "coupled"  # unless the environment names another one: WANDB_PROJECT, MLFLOW_EXPERIMENT_NAME


class Session(NamedTuple):
    """What a tracker is opened with.

    The run folder, the content of run.json, the recorded `id` and `store`, and the last step that the tracker has (-1:
    none).
    """

    run: Path
    description: Mapping[str, Any]
    id: str
    store: str
    step: int


class Service(Protocol):
    """An open tracker; a method may raise any exception."""

    rewinds: bool
    at_once: int  # number of points per call of `log`, which stores all of them or none
    id: str
    store: str
    where: str  # text for the user: where to see the run

    def __init__(self, session: Session) -> None:
        """Open the tracker, or continue the series that the session names."""

    def log(self, points: Sequence[Point]) -> None:
        """Add points, ascending in their step."""

    def flush(self) -> None:
        """Send all points out of this process."""

    def close(self, status: Status) -> None:
        """Close the tracker with the status of the run."""


class TensorBoard:
    """Event files in the folder `tensorboard` of the run; a resumed run purges the steps that it trains again."""

    rewinds = True
    at_once = 100
    id = store = ""

    def __init__(self, session: Session) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = session.run / "tensorboard"
        self.where = f"tensorboard --logdir {folder}"
        purged = session.step + 1 if session.step >= 0 else None
        self.writer: Any = SummaryWriter(str(folder), purge_step=purged)
        for name, tree in (("settings", session.description["settings"]), ("run.json", session.description)):
            self.writer.add_text(name, f"```json\n{json.dumps(tree, indent=2)}\n```", max(session.step, 0))

    def log(self, points: Sequence[Point]) -> None:
        """Add a scalar for each value."""
        for point in points:
            for name, value in point.values.items():
                self.writer.add_scalar(name, value, point.step)

    def flush(self) -> None:
        """Write the queued values."""
        self.writer.flush()

    def close(self, status: Status) -> None:
        """Write all values and close the file."""
        self.writer.close()


class WandB:
    """A run of Weights & Biases: online, or in the folder `wandb` of the run with WANDB_MODE=offline."""

    rewinds = False
    at_once = 1
    store = ""

    def __init__(self, session: Session) -> None:
        import wandb

        self.id = session.id or uuid.uuid4().hex[:12]
        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=session.description["name"],
            id=self.id,
            resume="allow",
            dir=str(session.run),
            settings=wandb.Settings(console="off", silent=True),  # silent: a missing key is an error, not a prompt
        )
        self.where: str = f"wandb sync {Path(self.run.dir).parent}" if self.run.offline else str(self.run.url)
        self.run.config.update(session.description["settings"], allow_val_change=True)
        shutil.copy(session.run / "run.json", self.run.dir)  # files in this folder are uploaded with the run

    def log(self, points: Sequence[Point]) -> None:
        """Add a row of the history for each step."""
        for point in points:
            self.run.log(point.values, step=point.step)

    def flush(self) -> None:
        """Do nothing: another process already has each row."""

    def close(self, status: Status) -> None:
        """Wait until everything is sent or written."""
        self.run.finish(exit_code=int(status == "failed"))


class MLflow:
    """A run of MLflow, at MLFLOW_TRACKING_URI or else in the default store of MLflow."""

    rewinds = False
    at_once = 100
    STATUS: Mapping[str, str] = {"complete": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
    MOST = 1000, 100  # metrics and parameters of one request

    def __init__(self, session: Session) -> None:
        import mlflow

        self.store = os.environ.get("MLFLOW_TRACKING_URI") or session.store or mlflow.get_tracking_uri()
        self.client: Any = mlflow.MlflowClient(self.store)
        self.id = session.id or self._create(session.description)
        self.where = f"run {self.id} in {self.store}"
        self.client.update_run(self.id, status="RUNNING")
        self.client.log_artifact(self.id, str(session.run / "run.json"))

    def _create(self, description: Mapping[str, Any]) -> str:
        """Create a run with the settings as its parameters, which MLflow never changes."""
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        run_id = str(self.client.create_run(experiment, run_name=description["name"]).info.run_id)
        params = [Param(key, str(value)) for key, value in _leaves(description["settings"])]
        for first in range(0, len(params), self.MOST[1]):
            self.client.log_batch(run_id, params=params[first : first + self.MOST[1]])
        return run_id

    def log(self, points: Sequence[Point]) -> None:
        """Send the values of several steps in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, p.step) for p in points for name, value in p.values.items()]
        for first in range(0, len(metrics), self.MOST[0]):
            self.client.log_batch(self.id, metrics=metrics[first : first + self.MOST[0]])

    def flush(self) -> None:
        """Do nothing: a request returns when the store has its values."""

    def close(self, status: Status) -> None:
        """Set the final status of the run."""
        self.client.set_terminated(self.id, status=self.STATUS[status])


SERVICES: dict[str, type[Service]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values of nested mappings."""
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, tree
