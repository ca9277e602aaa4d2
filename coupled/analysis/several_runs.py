"""Several run folders as one argument: runs, and the folders of sweeps with all their points."""

import json
from collections.abc import Sequence
from pathlib import Path

from coupled.analysis.run import Run, open_run
from coupled.monitoring.terminal import counted, say

SWEEP = "sweep.json"  # in the folder of a sweep; written by coupled/sweep/tables.py


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
    try:
        names = list(json.loads((sweep / SWEEP).read_text(encoding="utf-8"))["points"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{sweep / SWEEP}: not a valid description of a sweep: {error}") from None
    folders = [sweep / name for name in names if (sweep / name / "run.json").is_file()]
    if not folders:
        raise ValueError(f"run_dir: the sweep in '{sweep}' has no run yet")
    if len(folders) < len(names):
        say(f"{sweep}: {len(folders)} of {counted(len(names), 'point')} have a run; the others are left out")
    return folders
