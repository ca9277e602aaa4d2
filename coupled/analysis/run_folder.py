"""The folder of a run: the newest folder, its description, and the store of its snapshots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coupled.config.controls import random_sources
from coupled.config.schema import from_resolved
from coupled.monitoring.terminal import counted
from coupled.storage.run_description import read_run_json
from coupled.storage.snapshots import SnapshotStore

SHOWN = 5  # runs, or folders with runs, in a message


def newest_run(folder: Path) -> Path:
    """Return the run in `folder` whose run.json was written last. Raises ValueError if there is none."""
    runs = runs_in(folder)
    if not runs:
        deeper = runs_below(folder) or "there is none in folders of sweeps either"
        raise ValueError(
            f"run_dir: not given, and there is no run directly in '{folder.resolve()}'; {deeper}; pass a run folder"
        )
    return runs[-1]


def runs_in(folder: Path) -> list[Path]:
    """Return the runs in `folder`, the one whose run.json was written last at the end."""
    return [run for _, run in sorted((path.stat().st_mtime_ns, path.parent) for path in folder.glob("*/run.json"))]


def runs_below(folder: Path) -> str:
    """The runs in folders in `folder`, such as those of sweeps, in words: the newest of each; "" if there are none."""
    found: dict[Path, list[Path]] = {}
    for pattern in ("*", "*/*"):
        for place in {path.parent.parent for path in folder.glob(f"{pattern}/*/run.json")}:
            found[place] = runs_in(place)
    newest = sorted(found.values(), key=lambda runs: (runs[-1] / "run.json").stat().st_mtime_ns)
    texts = [f"{runs[-1]} (newest of {counted(len(runs), 'run')})" for runs in newest[-SHOWN:]]
    more = f" and in {counted(len(newest) - SHOWN, 'other folder')}" if len(newest) > SHOWN else ""
    return f"in folders of sweeps: {', '.join(texts)}{more}" if texts else ""


def read_description(run: Path) -> dict[str, Any]:
    """Return run.json after checks, with all defaults in its settings. Raises ValueError with one line."""
    path = run / "run.json"
    if not run.exists():
        others = [str(each) for each in runs_in(Path("runs"))]
        hint = f"the newest under runs/: {', '.join(others[-SHOWN:])}" if others else runs_below(Path("runs"))
        raise ValueError(f"run_dir: no such folder '{run}'{hint and '; '}{hint}")
    if not path.is_file():
        inside = ", ".join(map(str, runs_in(run)[-SHOWN:]))
        raise ValueError(
            f"run_dir: '{run}' is not a run folder: it has no run.json{inside and f'; runs in it: {inside}'}"
        )
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
