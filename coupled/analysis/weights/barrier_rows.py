"""The rows of barrier.csv with their excess over the straight line, and the heights of the barriers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import read_newest
from coupled.analysis.tidy_csv import write_table
from coupled.monitoring.terminal import say

TABLE, HEIGHTS = "barrier.csv", "barrier_height.csv"
What = tuple[object, ...]  # module, metric, variant, shots, k, temperature


def rows(
    keys: Mapping[tuple[str, float, What], What], values: Mapping[float, Mapping[tuple[str, What], float]]
) -> Iterator[What]:
    """Yield the rows of a pair at one epoch, with the excess over the line between both ends."""
    place = SCHEMAS[TABLE].columns.index("value")
    for (split, position, what), key in keys.items():
        value, first, last = (values[at][split, what] for at in (position, 0.0, 1.0))
        line = first if first == last else (1 - position) * first + position * last  # equal ends: exactly no excess
        yield (*key[:place], value, value - line, *key[place:])


def heights(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of barrier_height.csv from those of barrier.csv: the worst position of each curve.

    A loss is worst where its excess is largest, an accuracy where it is smallest. An undefined curve has no height.
    """
    curve = list(SCHEMAS[HEIGHTS].key)
    above = table.assign(height=table["excess"].where(table["module"] == "z", -table["excess"]) + 0.0)
    curves = above.groupby(curve, sort=False, dropna=False)
    above = above.assign(points=curves["height"].transform("size"), place=curves.ngroup())
    worst = above[above["height"].notna()].sort_values("height", ascending=False, kind="stable")
    worst = worst.drop_duplicates(curve).sort_values("place")
    counts = dict.fromkeys(("shots", "k", "num_train_images", "batch_size"), "Int64")  # empty for some metrics
    return worst.assign(value=worst["height"])[list(SCHEMAS[HEIGHTS].columns)].astype(counts)


def write_heights(output: Path) -> None:
    """Rewrite barrier_height.csv from barrier.csv in the same folder."""
    table = heights(read_newest(output / TABLE, "value", "excess"))
    write_table(output / HEIGHTS, table)
    say(f"{output / HEIGHTS}: {len(table)} rows")
