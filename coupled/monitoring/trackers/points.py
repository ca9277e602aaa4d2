"""Convert rows of a run's tables to points of its series: names, values and the step they belong to.

Names have the form `loss/cl`, `loss/nscl`: trackers draw the series with the same text before the slash in one group.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

Row = Mapping[str, Any]  # cells by column, numbers or text


class Point(NamedTuple):
    """The values of one step. `table` is the CSV file, `number` the step or epoch of the rows."""

    table: str
    number: int
    step: int
    values: dict[str, float]


class Layout(NamedTuple):
    """The layout of the tables of a run: its arms, the columns of steps.csv per arm, the steps per epoch."""

    arms: Sequence[str]
    per_arm: Sequence[str]
    steps_per_epoch: int


def of_step(row: Row, layout: Layout) -> Point:
    """Return the point of a steps.csv row: `loss/<arm>`, `grad_norm/<arm>`, `skipped_anchors/<arm>`, lr and epoch, and
    `lr/<arm>` of an arm with its own optimizer.
    """
    each = {f"{column}/{arm}": row[f"{arm}_{column}"] for column in layout.per_arm for arm in layout.arms}
    each |= {f"lr/{arm}": row[f"{arm}_lr"] for arm in layout.arms if f"{arm}_lr" in row}
    step = int(row["step"])
    return Point("steps.csv", step, step, _numbers({"epoch": row["epoch"], "lr": row["lr"], **each}))


def of_epoch(rows: Sequence[Row], layout: Layout) -> Point:
    """Return the point of an epoch in epochs.csv: `epoch_loss/<arm>`, `seconds/<arm>`, `images_per_second/<arm>`."""
    columns = {"loss": "epoch_loss", "seconds": "seconds", "images_per_second": "images_per_second"}
    each = {f"{shown}/{row['arm']}": row[column] for column, shown in columns.items() for row in rows}
    epoch = int(rows[0]["epoch"])
    return Point("epochs.csv", epoch, epoch * layout.steps_per_epoch, _numbers(each))


def of_monitor(rows: Sequence[Row], layout: Layout) -> Point:
    """Return the point of an epoch in monitor.csv: `<metric>/<arm>`, without the digest of a user-defined metric."""
    each = {f"{row['metric'].partition('@')[0]}/{row['arm']}": row["value"] for row in rows}  # MLflow refuses "@"
    epoch = int(rows[0]["epoch"])
    return Point("monitor.csv", epoch, epoch * layout.steps_per_epoch, _numbers(each))


def read_points(run: Path, layout: Layout, last_step: int) -> Iterator[Point]:
    """Yield the points of the tables in the folder `run` up to a step, ascending; within a step, steps.csv first."""
    last_epoch = last_step // layout.steps_per_epoch
    steps = (of_step(row, layout) for row in _rows(run / "steps.csv", "step", last_step))
    epochs = (of_epoch(rows, layout) for rows in _of_epochs(run / "epochs.csv", last_epoch))
    monitor = (of_monitor(rows, layout) for rows in _of_epochs(run / "monitor.csv", last_epoch))
    yield from merge(steps, epochs, monitor, key=lambda point: point.step)


def _of_epochs(path: Path, last: int) -> Iterator[list[Row]]:
    for _, rows in groupby(_rows(path, "epoch", last), lambda row: row["epoch"]):
        yield list(rows)


def _rows(path: Path, column: str, last: int) -> Iterator[Row]:
    """Yield the rows up to `last`; none without the file. Later rows may be half written while training continues."""
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row[column].isdecimal() or int(row[column]) > last:
                return
            yield row


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite values; an undefined metric has an empty cell."""
    numbers: Iterable[tuple[str, float]] = ((name, float(value)) for name, value in values.items() if value != "")
    return {name: number for name, number in numbers if isfinite(number)}
