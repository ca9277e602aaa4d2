"""What the tests of the report look at: its charts, and copies of a run's folder that they may change."""

import shutil
from pathlib import Path

from coupled.analysis.report.charts import Chart, Look
from coupled.analysis.report.program import sections
from coupled.analysis.report.tables import read_runs


def charts_of(*folders: Path) -> dict[str, Chart]:
    """The charts of a page about these runs, by key."""
    runs = read_runs(folders)
    found = [part for section in sections(runs, Look(runs)) for part in section["parts"]]
    return {part.key: part for part in found if isinstance(part, Chart)}


def copied(run: Path, to: Path) -> Path:
    """A copy without the page."""
    return Path(shutil.copytree(run, to, ignore=shutil.ignore_patterns("report.html", "snapshots")))
