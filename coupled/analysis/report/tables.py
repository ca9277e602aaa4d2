"""The input of a report: runs, each with its tables by name. Only run.json and CSV files are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from coupled.analysis.run import Run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.selections.looks import twins_of
from coupled.analysis.selections.seeds import average, by_seed, common_name, unique
from coupled.analysis.several_runs import run_labels
from coupled.analysis.tables import newest, read_table
from coupled.analysis.theory_schemas import TABLES as THEORY
from coupled.config.controls import usual_reference
from coupled.storage.run_description import imported_epochs
from coupled.storage.snapshots import snapshot_epochs

# these two are not in the folder analysis; transfer.csv is about images of another dataset; theory is of no run
WITH_OPTIONS = (
    *("weight_gap_permutation.csv", "weight_gap_filters.csv", "transfer.csv"),
    *(f"{split}_{table}.csv" for split in ("train", "test") for table in ("class_alignment", "mutual_knn")),
)
NOT_SHOWN = ("steps.csv", "epochs.csv", "map.csv", *WITH_OPTIONS, *THEORY)
STEPS = ("epoch", "step", "lr")  # columns of steps.csv that every run has
SHOWN = tuple(name for name in SCHEMAS if name not in NOT_SHOWN)


@dataclass(frozen=True)
class ReportRun:
    """A run of a report and its tables. A table that does not exist or has no rows is an empty frame."""

    name: str  # unique in a report
    run: Run
    tables: dict[str, pd.DataFrame]  # by the file's name; of several seeds the means
    seeds: int = 1
    members: tuple["ReportRun", ...] = ()  # the runs of several seeds

    @property
    def each_seed(self) -> "Sequence[ReportRun]":
        """The single runs."""
        return self.members or (self,)

    def table(self, name: str) -> pd.DataFrame:
        """The rows of a table; an empty frame if there are none."""
        return self.tables.get(name, pd.DataFrame())

    @property
    def references(self) -> list[str]:
        """The references of weight_gap.csv and test_alignment.csv, the usual one of the run first."""
        tables = [self.table(name) for name in ("weight_gap.csv", "test_alignment.csv")]
        names = {str(each) for table in tables if len(table) for each in table["reference"].unique()}
        usual = usual_reference(self.arm_names)
        return sorted(names, key=lambda name: (name != usual, self.arm_names.index(name)))

    def only(self, reference: str) -> "ReportRun":
        """The run with the rows of this reference alone in the tables of pairs."""
        tables = {
            name: table[table["reference"] == reference] if "reference" in table else table
            for name, table in self.tables.items()
        }
        return replace(self, tables=tables, members=tuple(run.only(reference) for run in self.members))

    @property
    def arms(self) -> list[str]:
        """The arms in the order of the settings."""
        return list(self.run.settings.arms)

    @property
    def arm_names(self) -> list[str]:
        """All arms, in the order of the settings."""
        return list(self.arm_settings)

    @property
    def arm_settings(self) -> Mapping[str, Mapping[str, Any]]:
        """The settings of every arm, as in run.json."""
        return self.run.description["settings"]["arms"]

    def twins_of(self, reference: str) -> list[str]:
        """The twins of this reference; of "": all twins of earlier arms."""
        return twins_of(self.arm_settings, reference)

    @property
    def last_epoch(self) -> int:
        """The last epoch that was trained; 0 before the first has ended."""
        epochs = self.table("epochs.csv")
        if imported := imported_epochs(self.run.description):
            return max((epoch for of_arm in imported.values() for epoch in of_arm), default=0)
        return int(epochs["epoch"].max()) if len(epochs) else 0

    @property
    def kept_epochs(self) -> list[int]:
        """The trained epochs of which the settings keep a snapshot."""
        settings, last = self.run.settings, self.last_epoch
        if imported := imported_epochs(self.run.description):
            return sorted(set.intersection(*map(set, imported.values()))) or [last]
        # the settings may name a million epochs; the epochs after last + 1 do not change which trained ones are kept
        near = min(settings.epochs, last + 1)
        kept = snapshot_epochs(near, settings.snapshots.every_epochs, settings.snapshots.dense_until_epoch)
        return [epoch for epoch in kept if epoch <= last]


def read_runs(runs: Sequence[Run]) -> list[ReportRun]:
    """Return the runs with their tables, under unique names.

    Raises ValueError for a run that is listed twice, BadTableError for a damaged table.
    """
    paths = [run.path.resolve() for run in runs]
    if len({*paths}) < len(paths):
        raise ValueError("run_dir: a run folder is listed twice; list each run once")
    return [
        ReportRun(name, run, read_tables(run.path, list(run.settings.arms)))
        for name, run in zip(run_labels(runs), runs, strict=True)
    ]


def by_experiment(runs: Sequence[ReportRun]) -> list[tuple[str, list[ReportRun]]]:
    """Return the runs that differ only in their seeds together, each group with its unique name."""
    places = by_seed([run.run.description["settings"] for run in runs])
    groups = [[runs[place] for place in group] for group in places]
    names = unique([common_name([run.name for run in group], [run.run.path for run in group]) for group in groups])
    return list(zip(names, groups, strict=True))


def experiments(runs: Sequence[ReportRun]) -> list[ReportRun]:
    """Return the runs as the charts show them: runs that differ only in their seeds as one, with means of the tables.

    A table that one of them lacks is left out; the page lists it as missing.
    """
    return [
        group[0] if len(group) == 1 else ReportRun(name, group[0].run, _means(group), len(group), tuple(group))
        for name, group in by_experiment(runs)
    ]


def by_reference(runs: Sequence[ReportRun]) -> list[tuple[str, list[ReportRun]]]:
    """Return each reference with the runs that have only its rows, so that a chart does not show every pair of arms.

    Runs of which each has one reference are returned as they are, under the name "".
    """
    if all(len(run.references) < 2 for run in runs):
        return [("", list(runs))]
    names = dict.fromkeys(name for run in runs for name in run.references)
    return [(name, [run.only(name) for run in runs]) for name in names]


def _means(runs: Sequence[ReportRun]) -> dict[str, pd.DataFrame]:
    """The tables that all runs have, as means over the runs."""
    names = [name for name in runs[0].tables if all(name in run.tables for run in runs)]
    return {name: average([run.tables[name] for run in runs], name) for name in names}


def read_tables(folder: Path, arms: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the non-empty tables of a run with these arms, by file name. Raises BadTableError."""
    tables = {}
    for path in (folder / "steps.csv", folder / "epochs.csv", *(folder / "analysis" / name for name in SHOWN)):
        if path.exists():
            # an arm with its own order or views has its own column of digests in steps.csv
            columns = STEPS if path.name == "steps.csv" else SCHEMAS[path.name].columns
            table = read_table(path, columns, arms)
            if len(table):
                tables[path.name] = _newest_rows(table, path.name)
    return tables


def _newest_rows(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the last of the rows that differ only in their digests, in the order of epochs."""
    table = newest(table, name) if SCHEMAS[name].digests else table
    return table.sort_values("epoch", kind="stable") if "epoch" in table else table  # rows are appended in any order
