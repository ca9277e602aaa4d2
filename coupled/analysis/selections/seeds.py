"""Runs that differ only in their seeds: which they are, their names, and the means of their tables."""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd

from coupled.analysis.schemas import INTERVAL, SCHEMAS
from coupled.analysis.selections.looks import Source

OF_A_SEED = ("name", "seed")  # settings in which the seeds of one experiment differ


def by_seed(settings: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Group the places of runs with equal settings except name and seed, in order of their first run."""
    groups: list[tuple[dict[str, Any], list[int]]] = []
    for place, each in enumerate(settings):
        kept = {key: value for key, value in each.items() if key not in OF_A_SEED}
        group = next((places for known, places in groups if known == kept), None)
        if group is None:
            groups.append((kept, [place]))
        else:
            group.append(place)
    return [places for _, places in groups]


def run_names(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Unique names of runs: their own, or the ends of their paths, with as many folders as needed."""
    found, parts = list(names), 0
    while len({*found}) < len(found):
        parts += 1
        found = [str(Path(*folder.parts[-parts:])) for folder in folders]
    return found


def common_name(names: Sequence[str], folders: Sequence[Path]) -> str:
    """The name of an experiment: what the names of its runs have in common at the start, or the folder of the runs."""
    if len(names) == 1:
        return names[0]
    letters = zip(*names, strict=False)
    common = "".join(same[0] for same in takewhile(lambda each: len({*each}) == 1, letters))
    return common.rstrip("0123456789-_=, ").removesuffix("seed").rstrip("-_=, /") or folders[0].resolve().parent.name


def unique(names: Sequence[str]) -> list[str]:
    """The names; those that occur several times are numbered."""
    return [f"{name} {names[:place].count(name) + 1}" if names.count(name) > 1 else name
            for place, name in enumerate(names)]  # fmt: skip


def average(tables: Sequence[pd.DataFrame], name: str) -> pd.DataFrame:
    """Return the means over runs of the table `name`, of the rows that all of these runs have.

    Args:
        tables: the newest rows of each run, at least two.
        name: file name of the table, which is in SCHEMAS.

    Returns:
        One row for each key, in the order of the first run. A column c of numbers has the mean, and `c_sd` the standard
        deviation (with n - 1); both are NaN if a run has no number. Another column has the common text; of different
        texts "yes" if there is one, otherwise no text. Digests and intervals over images are left out.
    """
    schema = SCHEMAS[name]
    left_out = {*schema.digests, *INTERVAL, "inputs_digest"}
    key = [column for column in schema.place if all(column in table for table in tables)]
    return _means([table.drop(columns=[c for c in table if c in left_out]) for table in tables], key)


def derived(source: Source, compute: Callable[[Source], pd.DataFrame], key: Sequence[str]) -> pd.DataFrame:
    """Return what `compute` returns for a run; of several seeds the means of what it returns for each of them.

    For values that are no linear function of a table: the value of mean rows is not the mean of the values. The columns
    are as in `average`, with rows that agree in `key` as one row.
    """
    tables = [compute(each) for each in source.each_seed]
    return tables[0] if len(tables) == 1 else _means(tables, list(key))


def _means(tables: Sequence[pd.DataFrame], key: list[str]) -> pd.DataFrame:
    every = pd.concat(tables)
    values = [str(column) for column in every if column not in key]
    numeric = [column for column in values if pd.api.types.is_numeric_dtype(every[column])]
    groups = every.groupby(key, dropna=False, sort=False)
    whole = groups[numeric].count() == len(tables)  # no mean over fewer runs
    means = groups[numeric].mean().where(whole).join(groups[numeric].std().where(whole).add_suffix("_sd"))
    for column in values:
        if column not in numeric:
            means[column] = groups[column].agg(_common)
    means = means[groups.size() == len(tables)]
    return means.reset_index()


def _common(texts: "pd.Series[Any]") -> Any:
    """The text that all have; of different ones "yes" if it is one of them."""
    distinct = {*texts.dropna()}
    return distinct.pop() if len(distinct) == 1 else "yes" if "yes" in distinct else None
