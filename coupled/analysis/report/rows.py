"""The tables of a report: what was run, the last values, the fits, and what is still to be computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from coupled.analysis.report.tables import Missing, Run, missing, thinned
from coupled.analysis.tables import largest_sample, whole_encoder
from coupled.monitoring.commands import suggest

DIFFERS = "≠"


class Cell(NamedTuple):
    """What is copied, what is seen, and the arm whose switch hides the row."""

    value: str
    text: str
    number: bool = False
    arm: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page; without rows it is left out."""

    key: str
    title: str
    words: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False


def cell(value: Any, arm: str = "") -> Cell:
    """Numbers in full for the copy, with four digits for the eye; an empty cell for nothing."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return Cell("", "", arm=arm)
    if isinstance(value, float):
        return Cell(repr(float(value)), f"{value:.4g}", True, arm)
    return Cell(str(value), str(value), isinstance(value, int), arm)


def about(runs: Sequence[Run]) -> Table:
    """State, versions and digests, and whether verify passes."""
    columns, rows = _beside(runs, [flat(described(run)) for run in runs])
    return Table("about", "State, versions and digests", "", columns, rows)


def settings(runs: Sequence[Run]) -> Table:
    """All settings; of several runs side by side, what differs first."""
    columns, rows = _beside(runs, [flat(run.about["settings"]) for run in runs])
    rows.sort(key=lambda row: row[-1].value != DIFFERS)
    return Table("settings", "Settings", "", columns, rows, folded=True)


def _beside(runs: Sequence[Run], facts: Sequence[Mapping[str, str]]) -> tuple[list[str], list[list[Cell]]]:
    """Columns and rows of what is known of each run; with several a last column says what differs."""
    several = len(runs) > 1
    rows = []
    for key in dict.fromkeys(key for each in facts for key in each):
        values = [each.get(key, "") for each in facts]
        mark = [DIFFERS if len({*values}) > 1 else ""] if several else []
        rows.append([cell(each) for each in (key, *values, *mark)])
    return ["", *(run.name for run in runs), *(["differs"] if several else [])], rows


def described(run: Run) -> dict[str, Any]:
    """run.json without the settings, and the state of the run first."""
    given = {key: value for key, value in run.about.items() if key not in ("settings", "format", "launch", "placement")}
    return {"folder": str(run.folder), "last epoch": run.last_epoch, "verify": verified(run), **given}


def verified(run: Run) -> str:
    """What verify found, and up to which epoch."""
    table = run.table("verify.csv")
    if table.empty:
        return "not run yet"
    findings = table["finding"].dropna().tolist()
    epoch = int(table["last_epoch"].max())
    return f"passes, up to epoch {epoch}" if not findings else f"{len(findings)} findings: {'; '.join(findings)}"


def flat(tree: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Dotted keys; lists and empty sections as one value."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found


def last_values(runs: Sequence[Run]) -> Table:
    """Each arm at its last measured epoch: weight gap, CKA, RSA to each reference, and what it is good for."""
    rows = []
    for run in runs:
        for arm in run.arms:
            gaps = run.table("weight_gap.csv")
            gaps = _where(whole_encoder(gaps, "mean") if len(gaps) else gaps, arm=arm)
            scores = _where(run.table("test_alignment.csv"), module="h", arm=arm)
            quality = _where(run.table("quality.csv"), module="h", arm=arm)
            own = [
                _last(_where(quality, metric=metric, variant=variant), "value")
                for metric, variant in (("nccc", "euclidean"), ("linear_probe", "regularised"))
            ]
            for reference in dict.fromkeys([*gaps.get("reference", ()), *scores.get("reference", ())]) or [""]:
                gap = _last(_where(gaps, reference=reference), "gap")
                both = [_last(_where(scores, reference=reference, metric=each), "value") for each in ("cka", "rsa")]
                if any(not pd.isna(value) for value in (gap, *both, *own)):
                    rows.append([cell(each, arm) for each in (run.name, arm, reference, gap, *both, *own)])
    measured = ["weight gap (mean)", "CKA (test, h)", "RSA (test, h)", "NCCC (test, h)", "probe (test, h)"]
    columns = ["run", "arm", "reference", *measured]
    return Table("last", "At the last measured epoch", "", columns, rows)


def _where(table: pd.DataFrame, **cells: str) -> pd.DataFrame:
    """The rows with these cells."""
    for column, value in cells.items():
        table = table[table[column] == value] if len(table) else table
    return table


def _last(table: pd.DataFrame, column: str) -> float:
    if table.empty:
        return float("nan")
    rows = largest_sample(table)
    return float(rows.sort_values("epoch")[column].iloc[-1])


def fits(runs: Sequence[Run]) -> Table:
    """weight_gap_growth.csv."""
    return _whole(
        "fits", "Growth fits", "Errors are one sigma; better is the lower aic.", runs, "weight_gap_growth.csv"
    )


def correlations(runs: Sequence[Run]) -> Table:
    """loss_correlation.csv."""
    words = "Pearson correlation of an arm's DCL and NSCL losses over the epochs."
    return _whole("correlations", "DCL and NSCL along training", words, runs, "loss_correlation.csv")


def _whole(key: str, title: str, words: str, runs: Sequence[Run], name: str) -> Table:
    parts = [run.table(name).assign(run=run.name) for run in runs if len(run.table(name))]
    if not parts:
        return Table(key, title, words, [], [])
    table = pd.concat(parts)
    columns = ["run", *(column for column in table if column != "run")]
    rows = [[cell(row[column], str(row["arm"])) for column in columns] for row in table.to_dict("records")]
    return Table(key, title, words, list(map(str, columns)), rows)


def to_compute(runs: Sequence[Run]) -> Table:
    """What is missing, and the command that computes it."""
    words = "Or all at once: add --compute to the command that wrote this page."
    return _commands("missing", "Missing tables", words, [each for run in runs for each in missing(run)])


def to_complete(runs: Sequence[Run]) -> Table:
    """What was measured at some epochs or layers only, and the command that adds the others."""
    words = "For your information: as they were asked for. These commands add the rest; --compute leaves it."
    return _commands("thinned", "Measured in part", words, [each for run in runs for each in thinned(run)])


def _commands(key: str, title: str, words: str, found: Sequence[Missing]) -> Table:
    rows = [[*map(cell, (each.run, each.table, each.state, suggest(*each.command)))] for each in found]
    return Table(key, title, words, ["run", "table", "state", "command"], rows)
