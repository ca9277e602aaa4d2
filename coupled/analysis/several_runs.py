"""Several run folders as one argument: runs, and the folders of sweeps with all their points; their names in labels."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coupled.analysis.run import Run, open_run
from coupled.analysis.selections.seeds import run_names
from coupled.monitoring.commands import typed
from coupled.monitoring.terminal import counted, say

SWEEP = "sweep.json"  # in the folder of a sweep; written by coupled/sweep/tables.py
LONGEST_VALUE = 32  # letters of a value in a label


def open_runs(paths: Sequence[Path]) -> list[Run]:
    """Return the runs in these folders; without any, the newest run under runs/.

    The folder of a sweep stands for the run folders of its points. A line says how many of them have no run yet.

    Args:
        paths: folders of runs and of sweeps.

    Returns:
        The runs, in the order of the folders and of the points of each sweep.

    Raises:
        ValueError: if a folder is neither, or a sweep has no run.
    """
    if not paths:
        return [open_run()]
    return [open_run(folder) for path in paths for folder in (points(path) if (path / SWEEP).is_file() else [path])]


def points(sweep: Path) -> list[Path]:
    """Return the run folders of a sweep, in the order of its points. Raises ValueError if there are none."""
    names = list(_points(sweep))
    folders = [sweep / name for name in names if (sweep / name / "run.json").is_file()]
    if not folders:
        raise ValueError(f"run_dir: the sweep in '{sweep}' has no run yet")
    if len(folders) < len(names):
        say(f"{sweep}: {len(folders)} of {counted(len(names), 'point')} have a run; the others are left out")
    return folders


def _points(sweep: Path) -> dict[str, Mapping[str, Any]]:
    """The points of a sweep with their values. Raises ValueError if sweep.json is damaged."""
    try:
        return {name: dict(values) for name, values in json.loads((sweep / SWEEP).read_bytes())["points"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{sweep / SWEEP}: not a valid description of a sweep: {error}") from None


def run_labels(runs: Sequence[Run]) -> list[str]:
    """Return unique names of runs for labels.

    Args:
        runs: runs in different folders.

    Returns:
        The run's name. For a point of a sweep the keys of which the sweep has several values: "temperature=0.1,seed=0".
        The name of the sweep is put before it ("warm/seed=0") unless all runs are points of one sweep. If names are
        not unique, the ends of the run folders' paths.
    """
    folders = [run.path.absolute() for run in runs]
    one_sweep = len(runs) > 1 and len({folder.parent for folder in folders}) == 1
    names = []
    for run, folder in zip(runs, folders, strict=True):
        values = _varying_values(folder)
        names.append(values if one_sweep and values else f"{folder.parent.name}/{values}" if values else run.name)
    return run_names(names, folders)


def _varying_values(folder: Path) -> str:
    """The values of a sweep's point that are not those of all points; "" for another run, or a damaged sweep.json."""
    try:
        every = _points(folder.parent) if (folder.parent / SWEEP).is_file() else {}
    except ValueError:
        return ""
    own = every.get(folder.name, {})
    varying = [key for key in own if len({json.dumps(each.get(key)) for each in every.values()}) > 1]
    return ",".join(f"{key}={_text(own[key])}" for key in varying)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def results_folder(runs: Sequence[Run]) -> Path:
    """Return the folder of what is written about these runs together: `analysis` in the deepest folder that has all.

    Args:
        runs: one run, the points of a sweep, or any runs.

    Returns:
        The folder `analysis` of one run; that of a sweep for its points.

    Raises:
        ValueError: if only the root of the file system has all of them.
    """
    if len(runs) == 1:
        return runs[0].tables
    folder = Path(os.path.commonpath([run.path.absolute() for run in runs]))
    if folder == Path(folder.anchor):
        raise ValueError(f"--output: the {len(runs)} runs have no folder in common; pass --output")
    return Path(typed(folder / "analysis"))
