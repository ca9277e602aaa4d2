"""The trackers themselves. Each is imported when it is opened: training needs none of them.

`rewinds` says whether a series can be cut and fed again. `id` and `store` are kept in the run folder.
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
    """What a tracker is opened with: the run folder, run.json, what was kept of it, and after which step it goes on
    (-1: it has no step yet).
    """

    run: Path
    description: Mapping[str, Any]
    id: str
    store: str
    step: int


class Service(Protocol):
    """An open tracker; every method may raise whatever it wants."""

    rewinds: bool
    at_once: int  # points that it takes together: all of them or none
    id: str
    store: str
    where: str  # for a person: where to look

    def __init__(self, session: Session) -> None:
        """Open it, or go on with the series that the session names."""

    def log(self, points: Sequence[Point]) -> None:
        """Add points, ascending in their step."""

    def flush(self) -> None:
        """Have all points out of this process."""

    def close(self, status: Status) -> None:
        """The run ends here, or is to be continued."""


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
        """A scalar for each value."""
        for point in points:
            for name, value in point.values.items():
                self.writer.add_scalar(name, value, point.step)

    def flush(self) -> None:
        """Write what is queued."""
        self.writer.flush()

    def close(self, status: Status) -> None:
        """Write all and close the file."""
        self.writer.close()


class WandB:
    """A run of Weights & Biases, online or, with WANDB_MODE=offline, in the folder `wandb` of the run."""

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
            settings=wandb.Settings(console="off", silent=True),  # silent: it never asks for a key, but fails
        )
        self.where: str = f"wandb sync {Path(self.run.dir).parent}" if self.run.offline else str(self.run.url)
        self.run.config.update(session.description["settings"], allow_val_change=True)
        shutil.copy(session.run / "run.json", self.run.dir)  # what lies there is sent with the run

    def log(self, points: Sequence[Point]) -> None:
        """A row of the history for each step."""
        for point in points:
            self.run.log(point.values, step=point.step)

    def flush(self) -> None:
        """Nothing: another process has each row already."""

    def close(self, status: Status) -> None:
        """Wait until all is sent or written."""
        self.run.finish(exit_code=int(status == "failed"))


class MLflow:
    """A run of MLflow where MLFLOW_TRACKING_URI says, or else in MLflow's usual store."""

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
        """A run with the settings as its parameters, which MLflow never changes."""
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
        """The values of several steps in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, p.step) for p in points for name, value in p.values.items()]
        for first in range(0, len(metrics), self.MOST[0]):
            self.client.log_batch(self.id, metrics=metrics[first : first + self.MOST[0]])

    def flush(self) -> None:
        """Nothing: a request returns when the store has its values."""

    def close(self, status: Status) -> None:
        """Say how the run has ended."""
        self.client.set_terminated(self.id, status=self.STATUS[status])


SERVICES: dict[str, type[Service]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested mappings."""
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, tree
