"""What a report is made of: the CSV files and run.json of a run, and what of them is still to be computed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.run_folder import read_description

PROGRAMS = {  # program -> the tables it writes; in the order in which they must run
    "verify": ("verify.csv",),
    "weight_gap": ("weight_gap.csv", "weight_gap_growth.csv"),
    "alignment": ("train_alignment.csv", "test_alignment.csv"),
    "quality": ("quality.csv",),
    "collapse": ("collapse.csv",),
    "losses": ("losses.csv", "loss_gap.csv", "loss_correlation.csv", "nscl_reached.csv"),
    "bounds": ("bounds.csv",),
}
MORE = {"verify": ("--output", "{run}/analysis")}  # options besides --run
NEVER_BEHIND = ("weight_gap_growth.csv", "loss_correlation.csv")  # without epochs, or written with the others


class Missing(NamedTuple):
    """A table that is not there or stops before the run, and the command that computes the rest."""

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


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs, under names that tell them apart. Raises ValueError for a folder that is no run, or is named twice."""
    paths = [folder.resolve() for folder in folders]
    if len({*paths}) < len(paths):
        raise ValueError("--run: a folder is given twice; name each run once")
    about = [read_description(folder) for folder in folders]
    names = [str(each["name"]) for each in about]
    if len({*names}) < len(names):
        names = [folder.name for folder in paths]
    if len({*names}) < len(names):
        names = [str(folder) for folder in folders]
    return [Run(*each, read_tables(each[1])) for each in zip(names, folders, about, strict=True)]


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """All tables of a run that have rows, by file name; a last row that is being written is left out."""
    wanted = [name for names in PROGRAMS.values() for name in names]
    paths = [folder / "epochs.csv", *(folder / "analysis" / name for name in wanted)]
    found = {}
    for path in paths:
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            table = _parsed(path, text[: text.rfind("\n") + 1])
            if len(table):
                found[path.name] = table
    return found


def _parsed(path: Path, text: str) -> pd.DataFrame:
    if not text:
        return pd.DataFrame()
    try:
        return pd.read_csv(StringIO(text), low_memory=False)
    except ValueError as error:  # of which the parser's errors are
        raise ValueError(f"{path}: not readable as a table ({' '.join(str(error).split())}); move it away") from None


def missing(run: Run) -> list[Missing]:
    """The tables that are not there, or stop before the last epoch of the run, in the order of their programs."""
    found = []
    for program, names in PROGRAMS.items():
        more = [each.format(run=run.folder) for each in MORE.get(program, ())]
        command = ("python", f"analysis/{program}.py", "--run", str(run.folder), *more)
        for name in names:
            table = run.table(name)
            epochs = next((column for column in ("last_epoch", "epoch") if column in table), None)
            if table.empty and name in NEVER_BEHIND and not run.table(names[0]).empty:
                continue  # too few epochs for it
            if table.empty:
                found.append(Missing(run.name, name, "not computed", command))
            elif name not in NEVER_BEHIND and epochs and table[epochs].max() < run.last_epoch:
                state = f"up to epoch {int(table[epochs].max())} of {run.last_epoch}"
                found.append(Missing(run.name, name, state, command))
    return found


def executable(command: Sequence[str]) -> list[str]:
    """The command as this Python runs it, from any directory."""
    return [sys.executable, str(Path(__file__).parent / Path(command[1]).name), *command[2:]]
