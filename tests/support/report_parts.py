"""Helpers for the tests of the report: its charts, and copies of run folders."""

import shutil
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from coupled.analysis.report.charts import Chart
from coupled.analysis.report.program import sections
from coupled.analysis.report.tables import ReportRun, read_runs
from coupled.analysis.run import open_run


def report_runs(*folders: Path) -> list[ReportRun]:
    """Return the runs in these folders as a report reads them."""
    return read_runs([open_run(folder) for folder in folders])


def charts_of(*folders: Path) -> dict[str, Chart]:
    """Return the charts of a report about these runs, by key."""
    runs = report_runs(*folders)
    parts = [part for section in sections(runs) for part in section["parts"]]
    return {part.key: part for part in parts if isinstance(part, Chart)}


def copied(run: Path, to: Path) -> Path:
    """Copy a run without its report."""
    return Path(shutil.copytree(run, to, ignore=shutil.ignore_patterns("report.html", "snapshots")))


def changed(run: ReportRun, **attributes: Any) -> ReportRun:
    """Return the run with changed attributes, such as the path."""
    other = copy(run.run)
    for name, value in attributes.items():
        object.__setattr__(other, name, value)
    return replace(run, run=other)
