"""The first sentence of a report: which arm is nearest to the reference, with the numbers of all arms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from coupled.analysis.report.tables import ReportRun, by_experiment
from coupled.analysis.tables import largest_sample, whole_encoder
from coupled.config.controls import twins
from coupled.monitoring.terminal import counted

MOST = 6  # arms with a number in the sentence; of more arms the nearest ones and the most distant one


@dataclass(frozen=True)
class Text:
    """Sentences of the page; without any it is left out."""

    key: str
    sentences: Sequence[str]
    note: str = ""  # below them


class Measure(NamedTuple):
    """What the sentence compares: its name, the rows of a run (epoch, reference, arm, value), and which value is
    nearest.
    """

    name: str
    rows: Callable[[ReportRun], pd.DataFrame]
    nearest: Callable[[pd.Series], str]


def headline(runs: Sequence[ReportRun], note: str = "") -> Text:
    """Return a sentence for each experiment (a run, or runs that differ only in their seeds), then the `note`."""
    groups = by_experiment(runs)
    found = [(name, text) for name, group in groups if (text := _sentence(group))]
    named = [f"{name}: {text}" if len(groups) > 1 else text for name, text in found]
    return Text("sentence", named, note.strip() if named else "")


def _sentence(runs: Sequence[ReportRun]) -> str:
    """Return the sentence about runs with equal arms; "" if no arm was compared at an epoch that all have."""
    for measure in MEASURES:
        tables = [measure.rows(run) for run in runs]
        if all(len(table) for table in tables) and (text := _of_measure(runs, tables, measure)):
            return text
    return ""


def _of_measure(runs: Sequence[ReportRun], tables: Sequence[pd.DataFrame], measure: Measure) -> str:
    reference = _reference(runs[0], tables[0])
    by_run = [table[table["reference"] == reference] for table in tables]
    values = [rows.pivot(index="epoch", columns="arm", values="value").dropna() for rows in by_run]
    epochs = set.intersection(*({*each.index} for each in values))
    if not epochs or any(each.columns.empty for each in values):
        return ""
    epoch = max(epochs)
    last = pd.DataFrame([each.loc[epoch] for each in values]).reset_index(drop=True)  # a row per run, a column per arm
    noise = twins(runs[0].run.description["settings"]["arms"], reference)
    means = last.drop(columns=[arm for arm in noise if arm in last]).mean().dropna()
    if means.empty:
        return ""
    first = measure.nearest(means)
    order = [first, *means.drop(first).sort_values(ascending=measure is WEIGHTS).index]
    shown = {arm: _number(last[arm], by_run[0], arm, epoch) for arm in [*order, *(a for a in noise if a in last)]}
    others = ", ".join(f"{arm} {shown[arm]}" for arm in order[1:MOST])
    others += f", ..., {order[-1]} {shown[order[-1]]} ({len(order)} arms)" if len(order) > MOST else ""
    floor = ", ".join(f"{arm}, a twin of {reference}, {shown[arm]}" for arm in noise if arm in last)
    ends = [f"After {counted(int(epoch), 'epoch')}, "]
    if others:
        ends += [f"{first} is nearest to {reference}: {measure.name} {shown[first]}; {others}"]
    else:
        ends += [f"{measure.name} of {first} with {reference} is {shown[first]}"]
    ends += [f"; noise floor: {floor}" if floor else "", "."]
    if len(runs) > 1:
        wins = int((last[means.index].apply(measure.nearest, axis=1) == first).sum())
        ends += [f" Mean ± standard deviation over {len(runs)} seeds"]
        ends += [f"; {first} is nearest in {wins} of them." if others else "."]
    else:
        brackets = any("[" in text for text in shown.values())
        ends += [" One seed; brackets: 95 % intervals over images." if brackets else " One seed."]
    return "".join(ends)


def _reference(run: ReportRun, table: pd.DataFrame) -> str:
    """The first reference of the run that the table has: the usual one, if it does."""
    return next(name for name in run.references if name in set(table["reference"]))


def _number(values: "pd.Series[float]", rows: pd.DataFrame, arm: str, epoch: int) -> str:
    """The mean over runs with its spread; of one run the value with its interval, if it has one."""
    if len(values) > 1:
        mean = _rounded(float(values.mean()))
        return f"{mean} ± {values.std():.{len(mean.partition('.')[2])}f}"
    row = rows[(rows["arm"] == arm) & (rows["epoch"] == epoch)].iloc[0]
    low, high = row.get("ci_low", np.nan), row.get("ci_high", np.nan)
    known = not (np.isnan(low) or np.isnan(high))
    digits = 3 if known and high - low < 0.02 else 2
    interval = f" [{_rounded(low, digits)}, {_rounded(high, digits)}]" if known else ""
    return _rounded(float(values.iloc[0]), digits) + interval


def _rounded(value: float, digits: int = 2) -> str:
    """A number with these decimals; with four if it is near 1 and not 1, with two digits if it is small and not 0."""
    if 0 < abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:.{4 if 0.995 <= value < 1 else digits}f}"


def _cka(run: ReportRun) -> pd.DataFrame:
    table = run.table("test_alignment.csv")
    table = table[(table["metric"] == "cka") & (table["module"] == "h")] if len(table) else table
    return largest_sample(table) if len(table) else table


def _gap(run: ReportRun) -> pd.DataFrame:
    table = run.table("weight_gap.csv")
    return whole_encoder(table, "mean").assign(value=lambda rows: rows["gap"]) if len(table) else table


def _highest(values: "pd.Series[float]") -> str:
    return str(values.idxmax())


def _lowest(values: "pd.Series[float]") -> str:
    return str(values.idxmin())


WEIGHTS = Measure("weight gap, mean over layers,", _gap, _lowest)
MEASURES = (Measure("CKA of h on test images", _cka, _highest), WEIGHTS)
