"""A run that is opened for reading. Temporary: the class `Run` and `open_run` of run.py take its place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coupled.analysis.run import newest_run, open_store, read_description
from coupled.config.schema import Settings, from_resolved
from coupled.storage.snapshots import SnapshotStore


@dataclass(frozen=True)
class Run:
    """A run folder: its description, settings and snapshots."""

    path: Path
    description: dict[str, Any]  # run.json
    settings: Settings
    snapshots: SnapshotStore

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.description["name"])


def open_run(path: Path | None = None) -> Run:
    """The run in the folder `path`; the newest under runs/ by default. Raises ValueError of one line."""
    path = path or newest_run(Path("runs"))
    description = read_description(path)
    settings = from_resolved(description["settings"], f"{path / 'run.json'}")
    return Run(path, description, settings, open_store(path, description))
