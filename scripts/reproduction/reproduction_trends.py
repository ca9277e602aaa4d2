"""How the distances from CL change with a factor of a sweep: NSCL between the noise floor and the ceiling.

What the floor's change does not explain of NSCL's is the difference of the two changes within a seed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from reproduction_distances import CEILING, FLOOR, joined, of_cl
from reproduction_statistics import Answer, Paired, by_seed, difference_row, over_seeds, paired, wide
from reproduction_values import GAP

SCORES = ("CKA", "RSA", GAP)
NAMES = {"nscl": "NSCL", FLOOR: "floor", CEILING: "ceiling"}
APART = "NSCL minus floor and minus ceiling within a seed, with 95 % intervals; effect: difference / sd"


def of(values: pd.DataFrame, *arms: str, names: Sequence[str] = SCORES) -> pd.DataFrame:
    """The scores of these arms against `cl`."""
    chosen = of_cl(values, names)
    return chosen[chosen["arm"].isin(arms)]


def changes(values: pd.DataFrame, factor: str, score: str) -> "pd.Series[float]":
    """The difference of a score between the ends of a factor, for each seed."""
    table = by_seed(values, score, factor)
    return table.iloc[:, -1] - table.iloc[:, 0]


def change(values: pd.DataFrame, factor: str, score: str) -> tuple[Paired, str]:
    """The difference of a score between the ends of a factor, within a seed, and its description without the factor."""
    table = by_seed(values, score, factor)
    difference = paired(list(changes(values, factor, score)))
    steps = np.diff(table.to_numpy(), axis=1)
    up, down = ((sign * steps > 0).all(axis=1).sum() for sign in (1, -1))
    words = (
        f"{table.mean().iloc[0]:.3f} to {table.mean().iloc[-1]:.3f}, {difference.text()}; up at every step in {up} of"
        f" {len(table)} seeds, down at every step in {down}"
    )
    return difference, words


def verb(difference: Paired) -> str:
    """The word for a difference: none if the interval contains 0."""
    return {1: "rises", -1: "falls", 0: "does not change beyond the interval"}[difference.direction()]


def trend(values: pd.DataFrame, factor: str, word: str, case: Sequence[str] = ()) -> Answer:
    """How CKA, RSA and weight gap change with a factor, for each of `case`; NSCL's difference from floor and ceiling.

    `values` are those of NSCL, and of floor and ceiling where they were measured. An arm without a value at one of the
    points has no trend.
    """
    chosen = of(values, *NAMES)
    sentences, verdicts, rows, apart = [], [], [], []
    for label, part in _cases(chosen, case):
        where = ", ".join(f"{column} {cell}" for column, cell in label.items())
        where += ": " if where else ""
        whole = dict(_whole(part, factor))
        told = {arm: {score: change(of_arm, factor, score) for score in SCORES} for arm, of_arm in whole.items()}
        rows += [
            {**label, "arm": arm, "score": score, **difference_row(changes(of_arm, factor, score))}
            for arm, of_arm in whole.items()
            for score in SCORES
        ]
        parts = []
        if "nscl" in told:
            sentences += [f"{where}{s} {verb(d)} {word}: {words}" for s, (d, words) in told["nscl"].items()]
            parts.append(", ".join(f"{score} {verb(d)}" for score, (d, _) in told["nscl"].items()))
        for arm in (FLOOR, CEILING):
            if arm in told:
                each = ", ".join(f"{score} {verb(d)}, {d.text()}" for score, (d, _) in told[arm].items())
                sentences.append(f"{where}{NAMES[arm]}: {each}")
        for arm, minus in _minus_others(whole, factor).items():
            each = ", ".join(f"{score} {d.text()}" for score, d in minus.items())
            beyond = [f"{score} ({d.mean:+.3f})" for score, d in minus.items() if d.direction()]
            sentences.append(f"{where}NSCL's change minus the {NAMES[arm]}'s: {each}")
            parts.append(f"NSCL's change minus the {NAMES[arm]}'s is beyond the interval in {joined(beyond)}")
        apart += [{**label, **row} for row in _apart_rows(part, factor)]
        if places := _apart(part, factor):
            sentences.append(f"{where}differing beyond the interval: {_places(places)}")
            parts.append(_counts(places, part[factor].nunique()))
        verdicts += [where + "; ".join(parts)] if "nscl" in told else []
    tables = {
        "": wide(over_seeds(_sorted(chosen), ["arm", *case, factor])),
        "Differences within a seed between the last and the first value": pd.DataFrame(rows),
    }
    if apart:
        tables[APART] = pd.DataFrame(apart).fillna("")
    return Answer(f"{word}: {'; '.join(verdicts)}", sentences, tables)


def _cases(values: pd.DataFrame, case: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    if not case:
        yield {}, values
        return
    for cells, part in values.groupby(list(case), sort=False):
        yield dict(zip(case, cells, strict=True)), part


def _whole(values: pd.DataFrame, factor: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The arms, in the order of NAMES, that were measured at every value of the factor."""
    for arm in NAMES:
        of_arm = values[values["arm"] == arm]
        if len(of_arm) and of_arm[factor].nunique() == values[factor].nunique():
            yield arm, of_arm


def _minus_others(whole: dict[str, pd.DataFrame], factor: str) -> dict[str, dict[str, Paired]]:
    """NSCL's change of each score minus that of floor and ceiling, in the seeds that both arms have."""
    minus: dict[str, dict[str, Paired]] = {}
    for arm in (FLOOR, CEILING):
        for score in SCORES if {"nscl", arm} <= {*whole} else ():
            both = changes(whole["nscl"], factor, score) - changes(whole[arm], factor, score)
            minus.setdefault(arm, {})[score] = paired(list(both.dropna()))
    return minus


def _points(values: pd.DataFrame, factor: str) -> Iterator[tuple[Any, str, pd.DataFrame]]:
    """Each value of the factor and score, with a column for each arm and a row for each seed."""
    for value, part in values.groupby(factor):
        for score in SCORES:
            yield value, score, by_seed(part, score, "arm")


def _minus(arms: pd.DataFrame, one: str, other: str) -> "pd.Series[float]":
    """The differences within a seed; empty if an arm was not measured."""
    return (arms[one] - arms[other]).dropna() if {one, other} <= {*arms} else pd.Series(dtype=float)


def _apart_rows(values: pd.DataFrame, factor: str) -> list[dict[str, Any]]:
    rows = []
    for value, score, arms in _points(values, factor):
        row = {factor: value, "score": score}
        row |= {NAMES[arm].lower(): f"{arms[arm].mean():.3f}" for arm in (FLOOR, "nscl", CEILING) if arm in arms}
        measured = {arm: each for arm in (FLOOR, CEILING) if len(each := _minus(arms, "nscl", arm))}
        for arm, each in measured.items():
            cells = difference_row(each)
            row[f"nscl minus {NAMES[arm]}"] = paired(list(each)).text()
            row[f"effect, {NAMES[arm]}"] = f"{cells['difference / sd']} ({cells['its 95 % interval']})"
        rows += [row] if measured else []
    return rows


def _apart(values: pd.DataFrame, factor: str) -> dict[tuple[str, str], dict[str, list[str]]]:
    """The values of the factor, by score, at which two arms differ beyond the interval; for each two that are there."""
    apart: dict[tuple[str, str], dict[str, list[str]]] = {}
    for one, other in (("nscl", FLOOR), ("nscl", CEILING), (FLOOR, CEILING)):
        for value, score, arms in _points(values, factor):
            each = _minus(arms, one, other)
            if len(each):
                where = apart.setdefault((one, other), {name: [] for name in SCORES})[score]
                where += [str(value)] if paired(list(each)).direction() else []
    return apart


def _places(apart: dict[tuple[str, str], dict[str, list[str]]]) -> str:
    parts = []
    for (one, other), scores in apart.items():
        where = [f"{score} (at {', '.join(at)})" for score, at in scores.items() if at]
        parts.append(f"{NAMES[one]} from the {NAMES[other]} in {joined(where)}")
    return "; ".join(parts)


def _counts(apart: dict[tuple[str, str], dict[str, list[str]]], points: int) -> str:
    """How many of the points differ beyond the interval, by score."""
    parts = [
        f"{NAMES[one]} from the {NAMES[other]} {'/'.join(str(len(at)) for at in scores.values())}"
        for (one, other), scores in apart.items()
    ]
    return f"differing ({'/'.join(SCORES)}) at, of {points} points: {', '.join(parts)}"


def _sorted(values: pd.DataFrame) -> pd.DataFrame:
    return values.sort_values("arm", key=lambda arms: arms.map(list(NAMES).index), kind="stable")
