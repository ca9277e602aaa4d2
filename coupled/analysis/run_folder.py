"""The folder of a run: the newest folder, its description, and the store of its snapshots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coupled.config.controls import random_sources
from coupled.config.schema import from_resolved
from coupled.storage.run_description import read_run_json
from coupled.storage.snapshots import SnapshotStore

SHOWN = 5  # runs in a message


def newest_run(folder: Path) -> Path:
    """Return the run in `folder` whose run.json was written last. Raises ValueError if there is none."""
    runs = runs_in(folder)
    if not runs:
        raise ValueError(f"run_dir: not given, and there is no run under '{folder.resolve()}'; pass a run folder")
    return runs[-1]


def runs_in(folder: Path) -> list[Path]:
    """Return the runs in `folder`, the one whose run.json was written last at the end."""
    return [run for _, run in sorted((path.stat().st_mtime_ns, path.parent) for path in folder.glob("*/run.json"))]


def read_description(run: Path) -> dict[str, Any]:
    """Return run.json after checks, with all defaults in its settings. Raises ValueError with one line."""
    path = run / "run.json"
    if not run.exists():
        others = [str(each) for each in runs_in(Path("runs"))]
        hint = f"; the newest under runs/: {', '.join(others[-SHOWN:])}" if others else ""
        raise ValueError(f"run_dir: no such folder '{run}'{hint}")
    if not path.is_file():
        raise ValueError(f"run_dir: '{run}' is not a run folder: it has no run.json")
    description = read_run_json(run)
    for key in sorted({"name", "settings", "settings_sha256", "dataset"} - set(description)):
        raise ValueError(f"{path}: does not describe a run: it has no key '{key}'")
    try:
        settings = from_resolved(description["settings"], "settings").resolved()
        random_sources(settings["arms"])  # raises for a twin of an unknown arm
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return {**description, "settings": settings}


def open_store(run: Path, about: Mapping[str, Any]) -> SnapshotStore:
    """Return the snapshots of the run; opening one checks that it belongs to this description."""
    return SnapshotStore(run / "snapshots", {"run": about["name"], "settings_sha256": about["settings_sha256"]})
