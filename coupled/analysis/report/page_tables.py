"""The tables of a report: run and settings, fits, and missing tables with their commands."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pandas as pd

from coupled.analysis.report.missing import Missing, by_command, further_tables, missing_tables, partial_tables
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.selections.differences import rank
from coupled.monitoring.terminal import counted

DIFFERS = "≠"
MANY_DIGITS = re.compile(r"(?<![\w.])\d+\.\d{7,}(?:e-?\d+)?(?![\w.])")
LONG = 24  # rows of a table of fits or correlations, above which it is folded
NO_NUMBER = {  # of a fit: words for an infinite value
    "level": "none: a straight line",
    "doubling_time": "does not double",
    "doubling_time_error": "-",
    "aic": "exact fit",
}


class Cell(NamedTuple):
    """The value that is copied, the text that is shown, and the arm whose switch hides the row."""

    value: str
    text: str
    number: bool = False
    arm: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page; without rows it is left out."""

    key: str
    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    arms: Sequence[str] = ()  # of the columns, if arms have columns; "" for a column of no arm


def without_empty_columns(table: Table) -> Table:
    """Return the table without the columns in which every cell is empty; the first column always stays."""
    places = [k for k in range(len(table.columns)) if k == 0 or any(row[k].text for row in table.rows)]
    rows = [[row[k] for k in places] for row in table.rows]
    arms = [table.arms[k] for k in places] if table.arms else ()
    return replace(table, columns=[table.columns[k] for k in places], rows=rows, arms=arms)


def cell(value: Any, arm: str = "") -> Cell:
    """A cell: a float is copied in full and shown with four digits; None and NaN give an empty cell."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return Cell("", "", arm=arm)
    if isinstance(value, float):
        text = f"{value:.4g}".replace("inf", "infinite")
        return Cell(repr(float(value)), text, True, arm)
    return Cell(str(value), str(value), isinstance(value, int), arm)


def about(runs: Sequence[ReportRun]) -> Table:
    """State, versions and digests of each run, and the result of verify."""
    columns, rows = _side_by_side(runs, [flatten(description_facts(run)) for run in runs])
    return Table("about", "State, versions and digests", "", columns, rows, folded=True)


def settings(runs: Sequence[ReportRun]) -> Table:
    """All settings; of several runs side by side, with the settings that differ first."""
    columns, rows = _side_by_side(runs, [flatten(run.run.description["settings"]) for run in runs])
    rows.sort(key=lambda row: (row[-1].value != DIFFERS, rank(row[0].value) if len(runs) > 1 else 0))
    imported = [run.name for run in runs if "imported" in run.run.description]
    defaults = "In an imported run, optimizer, batch and augmentation are defaults unless they were set at the import."
    return Table("settings", "Settings", defaults if imported else "", columns, rows, folded=True)


def _side_by_side(runs: Sequence[ReportRun], facts: Sequence[Mapping[str, str]]) -> tuple[list[str], list[list[Cell]]]:
    """Columns and rows of the facts of each run; of several runs a last column marks what differs."""
    several = len(runs) > 1
    rows = []
    for key in dict.fromkeys(key for each in facts for key in each):
        values = [each.get(key, "") for each in facts]
        mark = [DIFFERS if len({*values}) > 1 else ""] if several else []
        rows.append([_shortened(cell(each)) for each in (key, *values, *mark)])
    return ["key", *(run.name for run in runs), *(["differs"] if several else [])], rows


def _shortened(found: Cell) -> Cell:
    """The cell with six digits of numbers that have many; the value that is copied does not change."""
    return found._replace(text=MANY_DIGITS.sub(lambda match: f"{float(match[0]):.6g}", found.text))


def description_facts(run: ReportRun) -> dict[str, Any]:
    """The state of the run, then run.json without the settings."""
    left_out = ("settings", "format", "launch", "placement")
    facts = {key: value for key, value in run.run.description.items() if key not in left_out}
    return {"folder": str(run.run.path), "last epoch": run.last_epoch, "verify": verify_result(run), **facts}


def verify_result(run: ReportRun) -> str:
    """The result of verify, and the last epoch that it checked."""
    table = run.table("verify.csv")
    if table.empty:
        return "not run yet"
    findings = table["finding"].dropna().tolist()
    epoch = int(table["last_epoch"].max())
    return (
        f"passes, up to epoch {epoch}"
        if not findings
        else f"{counted(len(findings), 'finding')}: {'; '.join(findings)}"
    )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys; lists and empty sections as one value."""
    facts: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            facts |= flatten(value, f"{prefix}{key}.")
        else:
            facts[f"{prefix}{key}"] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return facts


def fits(runs: Sequence[ReportRun]) -> Table:
    """weight_gap_growth.csv, with words for what has no number."""
    caption = "Errors are standard errors. The curve with the lower AIC is better."
    table = _whole_table("fits", "Fits of the growth of the weight gap", caption, runs, "weight_gap_growth.csv")
    return replace(table, rows=[_fit_in_words(dict(zip(table.columns, row, strict=True))) for row in table.rows])


def _fit_in_words(row: dict[str, Cell]) -> list[Cell]:
    """The cells of a fit; the values that are copied do not change."""
    if not row["rate"].text:
        early = row["model"].value == "early"
        row["rate"] = row["rate"]._replace(text="too few epochs" if early else "does not converge")
    for column, words in NO_NUMBER.items():
        if "infinite" in row[column].text:
            row[column] = row[column]._replace(text=words, number=False)
    return list(row.values())


def correlations(runs: Sequence[ReportRun]) -> Table:
    """loss_correlation.csv."""
    caption = "Pearson correlation of an arm's DCL and NSCL losses over the epochs."
    title = "Correlation of DCL and NSCL during training"
    return _whole_table("correlations", title, caption, runs, "loss_correlation.csv")


def _whole_table(key: str, title: str, caption: str, runs: Sequence[ReportRun], name: str) -> Table:
    """All rows of the table `name` of the runs."""
    tables = [run.table(name).assign(run=run.name) for run in runs if len(run.table(name))]
    if not tables:
        return Table(key, title, caption, [], [])
    table = pd.concat(tables)
    columns = ["run", *(column for column in table if column != "run")]
    rows = [[cell(row[column], str(row["arm"])) for column in columns] for row in table.to_dict("records")]
    return Table(key, title, caption, list(map(str, columns)), rows, folded=len(rows) > LONG)


def to_compute(runs: Sequence[ReportRun]) -> Table:
    """The missing tables and the commands that compute them."""
    caption = "To compute all of them at once, add --compute to the command that wrote this page."
    return _commands("missing", "Missing tables", caption, [each for run in runs for each in missing_tables(run)])


def to_complete(runs: Sequence[ReportRun]) -> Table:
    """The tables of some epochs or layers only, and the commands that add the rest."""
    caption = (
        "These tables were computed for some epochs or layers only. The commands add the rest; --compute does not run"
        " them."
    )
    return _commands("thinned", "Partial tables", caption, [each for run in runs for each in partial_tables(run)])


def to_measure(runs: Sequence[ReportRun]) -> Table:
    """The further measures that were not computed, and the commands that compute them."""
    caption = "These measures take longer than the others. The commands compute them; --compute does not run them."
    return _commands("further", "Further measures", caption, [each for run in runs for each in further_tables(run)])


def _commands(key: str, title: str, caption: str, tables: Sequence[Missing]) -> Table:
    """A table of tables, each with its state and command, in one form for every reader of the page."""
    rows = [
        [*map(cell, (each.run, each.table, each.state, shlex.join(["coupled", *each.command])))]
        for each in by_command(tables)
    ]
    return Table(key, title, caption, ["run", "tables", "state", "command"], rows)
