"""What a report is made of: the CSV files and run.json of a run, and what of them is still to be computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from coupled.analysis.representations.layers import OUTPUTS
from coupled.analysis.run import USUAL_REFERENCE, read_description
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import newest, read_table
from coupled.storage.snapshots import snapshot_epochs

NOT_SHOWN = ("weight_gap_permutation.csv",)
PROGRAMS = {  # program -> the tables it writes that the page shows; in the order in which they must run
    program: tuple(name for name, schema in SCHEMAS.items() if schema.program == program and name not in NOT_SHOWN)
    for program in ("verify", "weight_gap", "alignment", "quality", "collapse", "losses", "bounds")
}
MORE = {  # options besides --run-dir
    "verify": ("--output", "{run}/analysis"),
    "alignment": ("--layers", "stages", "--cross-layer"),
}
PLACE = ("split", "reference", "arm", "module", "metric", "temperature")  # whole tables have each at all epochs
NEVER_BEHIND = ("weight_gap_growth.csv", "loss_correlation.csv", "nscl_reached.csv")  # written with the others
COMPARING = ("weight_gap", "alignment", "bounds")  # these take a reference, and need another arm beside it
BEFORE_BOUNDS = ("weight_gap.csv", "quality.csv")  # what they hold gets its bounds in bounds.csv


class Missing(NamedTuple):
    """A table that is not there or stops before the run, and the command with its options that computes the rest."""

    run: str
    table: str
    state: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """A run as its files tell it; a table that is not there, or has no rows, is an empty frame."""

    name: str  # unique in a report
    folder: Path
    about: dict[str, Any]  # run.json
    tables: dict[str, pd.DataFrame]

    def table(self, name: str) -> pd.DataFrame:
        """The rows of a table; empty if there are none."""
        return self.tables.get(name, pd.DataFrame())

    @property
    def arms(self) -> list[str]:
        """The arms in the order of the settings."""
        return list(self.about["settings"]["arms"])

    @property
    def last_epoch(self) -> int:
        """The last epoch that was trained; 0 before the first has ended."""
        epochs = self.table("epochs.csv")
        return int(epochs["epoch"].max()) if len(epochs) else 0

    @property
    def snapshots(self) -> list[int]:
        """The trained epochs of which the settings keep a snapshot."""
        settings, last = self.about["settings"], self.last_epoch
        thinned = settings["snapshots"]["every_epochs"], settings["snapshots"]["dense_until_epoch"]
        # the settings may name a million epochs: no more are looked at than decide which of the trained ones are kept
        near = min(settings["epochs"], last + 1)
        return [epoch for epoch in snapshot_epochs(near, *thinned) if epoch <= last]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs, under names that tell them apart. Raises ValueError for a folder that is no run, or is named twice."""
    paths = [folder.resolve() for folder in folders]
    if len({*paths}) < len(paths):
        raise ValueError("--run-dir: a folder is given twice; name each run once")
    about = [read_description(folder) for folder in folders]
    names = [str(each["name"]) for each in about]
    if len({*names}) < len(names):
        names = [folder.name for folder in paths]
    if len({*names}) < len(names):
        names = [str(folder) for folder in folders]
    tables = [read_tables(folder, list(each["settings"]["arms"])) for folder, each in zip(folders, about, strict=True)]
    return [Run(*each) for each in zip(names, folders, about, tables, strict=True)]


def read_tables(folder: Path, arms: Sequence[str]) -> dict[str, pd.DataFrame]:
    """All tables of a run with these arms that have rows, by file name. Raises BadTableError."""
    wanted = [name for names in PROGRAMS.values() for name in names]
    paths = [folder / "epochs.csv", *(folder / "analysis" / name for name in wanted)]
    found = {}
    for path in paths:
        if path.exists():
            table = read_table(path, SCHEMAS[path.name].columns, arms)
            if len(table):
                found[path.name] = _newest(table, path.name)
    return found


def _newest(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Of rows that differ in what they come from alone the last, by epoch."""
    schema = SCHEMAS[name]
    if "ci_low" in table:  # an interval stays when the score is written again without one
        same, ends = [*schema.place, *schema.digests], ["ci_low", "ci_high"]
        table[ends] = table.groupby(same, dropna=False)[ends].transform("last")
    table = newest(table, name) if schema.digests else table
    return table.sort_values("epoch", kind="stable") if "epoch" in table else table  # calls come in any order


def missing(run: Run) -> list[Missing]:
    """The tables that are not there, stop before the last snapshot of the run, or lack an arm, program by program.

    Epochs, layers and metrics that were left out on purpose count as there; `thinned` tells of the first two. A run of
    one arm has nothing to compare.
    """
    found: list[Missing] = []
    for program, names in PROGRAMS.items():
        if program in COMPARING and len(run.arms) < 2:
            continue
        for name in names:
            state = _state(run, name)
            if not state or (name in NEVER_BEHIND and not run.table(names[0]).empty):
                continue  # too few epochs or no such arms for it, if it is empty
            found.append(Missing(run.name, name, state, _command(run, program)))
    if not run.table("bounds.csv").empty and "bounds.csv" not in [each.table for each in found]:
        late = [each.table for each in found if each.table in BEFORE_BOUNDS]
        state = f"without what {late[-1]} lacks" if late else _lacks_few_shot(run)
        found += [Missing(run.name, "bounds.csv", state, _command(run, "bounds"))] if state else []
    return found


def thinned(run: Run) -> list[Missing]:
    """The tables, not `missing`, that a call kept to some epochs or layers, and the command that would add the rest."""
    known = {*NEVER_BEHIND, *(each.table for each in missing(run))}
    return [
        Missing(run.name, name, state, _command(run, program))
        for program, names in PROGRAMS.items()
        for name in names
        if name not in known and (state := _part(run, name, of_stages=program == "alignment"))
    ]


def _part(run: Run, name: str, of_stages: bool) -> str:
    """How much a table has of what it could, in words; "" if it has all."""
    table, epochs = run.table(name), run.snapshots
    if "epoch" not in table:
        return ""
    table = table.dropna(subset=["reference"]) if "reference" in table else table
    places = table[["epoch", *(column for column in PLACE if column in table)]].drop_duplicates()
    every = len(places.drop(columns="epoch").drop_duplicates())
    whole = int((places.groupby("epoch").size().reindex(epochs) == every).sum())
    layers = list(dict.fromkeys(table.get("module", ())))
    few = bool(layers) and {*layers} <= {*OUTPUTS} and (of_stages or len(layers) < len(OUTPUTS))
    words = [f"whole at {whole} of {len(epochs)} epochs"] if whole < len(epochs) else []
    return "; ".join([*words, *([f"of layers {', '.join(layers)} only"] if few else [])])


def _command(run: Run, program: str) -> tuple[str, ...]:
    more = [each.format(run=run.folder) for each in MORE.get(program, ())]
    if program in COMPARING and USUAL_REFERENCE not in run.arms:
        more += ["--reference", run.arms[0]]
    return (program.replace("_", "-"), "--run-dir", str(run.folder), *more)


def _state(run: Run, name: str) -> str:
    """What a table lacks, in words; "" if it is whole."""
    table, last = run.table(name), run.snapshots[-1]
    if table.empty:
        return "not computed"
    if "reference" in table:
        table = table.dropna(subset=["reference"])  # in bounds.csv an arm has few-shot errors by itself
    epochs = next((column for column in ("last_epoch", "epoch") if column in table), None)
    if epochs and not table[epochs].max() >= last:
        return f"up to epoch {int(table[epochs].max())} of {last}" if len(table) else "without comparisons"
    if epochs != "epoch" or "arm" not in table:
        return ""
    newest = table[table["epoch"] >= last]
    there = {*newest["arm"], *newest.get("reference", ())}
    lacking = [arm for arm in run.arms if arm not in there]
    return f"without {', '.join(lacking)} at epoch {last}" if lacking else ""


def _lacks_few_shot(run: Run) -> str:
    """As `_state`: whether bounds.py ran before quality.py had errors to bound."""
    quality, bounds = run.table("quality.csv"), run.table("bounds.csv")
    measured = not quality.empty and quality["shots"].notna().any()
    bounded = bounds["shots"].notna().any()
    return "without few-shot errors" if measured and not bounded else ""
