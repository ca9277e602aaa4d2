"""The tables of the last measured epoch: weight gap, alignment and accuracy of each arm."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np
import pandas as pd

from coupled.analysis.report.page_tables import Cell, Table, cell
from coupled.analysis.report.tables import ReportRun, by_experiment
from coupled.analysis.tables import largest_sample, whole_encoder

MEASURES = ("weight gap (mean)", "CKA (test, h)", "RSA (test, h)", "NCCC (test, h)", "linear probe (test, h)")


def last_values(shown: Sequence[ReportRun]) -> Table:
    """Each arm at its last measured epoch: weight gap, CKA and RSA to the first reference of its run, and accuracies.

    Args:
        shown: runs or experiments; of several seeds the cells have mean and standard deviation.
    """
    several = [run for run in shown if run.seeds > 1]
    counts = ", ".join(f"{run.name} n = {run.seeds}" if len(shown) > 1 else f"n = {run.seeds}" for run in several)
    caption = f"Mean ± standard deviation over seeds: {counts}." if several else ""
    rows = [row for run in shown for arm in run.arms for row in _to_first(run, arm)]
    return _table("last", "At the last measured epoch", caption, rows)


def last_values_of_others(shown: Sequence[ReportRun]) -> Table:
    """Each arm at its last measured epoch, compared with the other references of its run."""
    rows = [row for run in shown for arm in run.arms for row in _last_values(run, arm, run.references[1:])]
    return replace(_table("pairs", "At the last measured epoch, other references", "", rows), folded=True)


def last_values_of_seeds(runs: Sequence[ReportRun]) -> Table:
    """The last values of each run of the experiments that have several seeds."""
    seeds = [run for _, group in by_experiment(runs) if len(group) > 1 for run in group]
    return replace(last_values(seeds), key="seeds", title="At the last measured epoch of each seed", folded=True)


def _table(key: str, title: str, caption: str, rows: list[list[Cell]]) -> Table:
    """A table of these rows; a single run or reference is not repeated in every row, so narrow screens show values."""
    runs, references = ({row[place].text for row in rows} - {""} for place in (0, 2))
    shown = [len(runs) != 1, True, len(references) != 1, *(True for _ in MEASURES)]
    if len(references) == 1:
        caption = f"Reference: {references.pop()}. {caption}".rstrip()
    columns = [*compress(["run", "arm", "reference", *MEASURES], shown)]
    return Table(key, title, caption, columns, [[*compress(row, shown)] for row in rows])


def _to_first(run: ReportRun, arm: str) -> list[list[Cell]]:
    """The row of the first reference; of an arm that was not compared with it a row without a reference."""
    return [*_last_values(run, arm, run.references[:1])] or [*_last_values(run, arm, [""])]


def _last_values(run: ReportRun, arm: str, references: Sequence[str]) -> Iterator[list[Cell]]:
    """A row for each of these references that the arm was compared with, and for the reference ""."""
    gaps = run.table("weight_gap.csv")
    gaps = _where(whole_encoder(gaps, "mean") if len(gaps) else gaps, arm=arm)
    scores = _where(run.table("test_alignment.csv"), module="h", arm=arm)
    quality = _where(run.table("quality.csv"), split="test", module="h", arm=arm)
    accuracies = [
        _last(_where(quality, metric=metric, variant=variant), "value", arm)
        for metric, variant in (("nccc", "euclidean"), ("linear_probe", "regularised"))
    ]
    compared = {*gaps.get("reference", ()), *scores.get("reference", ()), ""}
    for reference in (each for each in references if each in compared):
        of_pair = _where(scores, reference=reference)
        gap = _last(_where(gaps, reference=reference), "gap", arm)
        values = [gap, *(_last(_where(of_pair, metric=metric), "value", arm) for metric in ("cka", "rsa")), *accuracies]
        if any(each.text for each in values):
            yield [*(cell(each, arm) for each in (run.name, arm, reference)), *values]


def _where(table: pd.DataFrame, **cells: str) -> pd.DataFrame:
    """The rows with these values in these columns."""
    for column, value in cells.items():
        table = table[table[column] == value] if len(table) else table
    return table


def _last(table: pd.DataFrame, column: str, arm: str) -> Cell:
    """The value of the last epoch, of the largest sample, with four digits; of several seeds with their deviation."""
    if table.empty:
        return cell(None, arm)
    last = largest_sample(table).sort_values("epoch").iloc[-1]
    value, spread = float(last[column]), float(last.get(f"{column}_sd", np.nan))
    found = cell(value, arm)
    if np.isfinite(value) and not value.is_integer():
        found = found._replace(text=f"{value:#.4g}")  # 0.3220 below 0.3645; a whole number is exact
    if not found.text or np.isnan(spread):
        return found
    decimals = len(found.text.partition(".")[2]) if "e" not in found.text else 0
    text = f"{found.text} ± {spread:.{decimals}f}" if decimals else f"{found.text} ± {spread:.2g}"
    return found._replace(value=f"{found.value} ± {spread!r}", text=text)
