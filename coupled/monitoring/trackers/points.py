"""Rows of a run's tables as the points of its series: names, values and the step that they belong to.

Names group the arms of one measure, as trackers draw what stands before the first slash together: `loss/cl`,
`loss/nscl`.
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
    """Values of one step. `table` is the file that they are from, `number` the step or epoch of their rows."""

    table: str
    number: int
    step: int
    values: dict[str, float]


class Layout(NamedTuple):
    """What the tables of a run are about: its arms, the columns of steps.csv for each, steps an epoch."""

    arms: Sequence[str]
    per_arm: Sequence[str]
    steps_per_epoch: int


def of_step(row: Row, layout: Layout) -> Point:
    """The point of a row of steps.csv: `loss/<arm>`, `grad_norm/<arm>`, `skipped_anchors/<arm>`, `lr` and `epoch`."""
    each = {f"{column}/{arm}": row[f"{arm}_{column}"] for column in layout.per_arm for arm in layout.arms}
    step = int(row["step"])
    return Point("steps.csv", step, step, _numbers({"epoch": row["epoch"], "lr": row["lr"], **each}))


def of_epoch(rows: Sequence[Row], layout: Layout) -> Point:
    """The point of an epoch's rows of epochs.csv: `epoch_loss/<arm>`, `seconds/<arm>`, `images_per_second/<arm>`."""
    columns = {"loss": "epoch_loss", "seconds": "seconds", "images_per_second": "images_per_second"}
    each = {f"{shown}/{row['arm']}": row[column] for column, shown in columns.items() for row in rows}
    epoch = int(rows[0]["epoch"])
    return Point("epochs.csv", epoch, epoch * layout.steps_per_epoch, _numbers(each))


def of_monitor(rows: Sequence[Row], layout: Layout) -> Point:
    """The point of an epoch's rows of monitor.csv: `<metric>/<arm>`, without the digest of a metric of the user."""
    each = {f"{row['metric'].partition('@')[0]}/{row['arm']}": row["value"] for row in rows}  # MLflow refuses "@"
    epoch = int(rows[0]["epoch"])
    return Point("monitor.csv", epoch, epoch * layout.steps_per_epoch, _numbers(each))


def read_points(run: Path, layout: Layout, last_step: int) -> Iterator[Point]:
    """The points of the tables in the folder `run` up to a step, ascending; of a step first those of steps.csv."""
    last_epoch = last_step // layout.steps_per_epoch
    steps = (of_step(row, layout) for row in _rows(run / "steps.csv", "step", last_step))
    epochs = (of_epoch(rows, layout) for rows in _of_epochs(run / "epochs.csv", last_epoch))
    monitor = (of_monitor(rows, layout) for rows in _of_epochs(run / "monitor.csv", last_epoch))
    yield from merge(steps, epochs, monitor, key=lambda point: point.step)


def _of_epochs(path: Path, last: int) -> Iterator[list[Row]]:
    for _, rows in groupby(_rows(path, "epoch", last), lambda row: row["epoch"]):
        yield list(rows)


def _rows(path: Path, column: str, last: int) -> Iterator[Row]:
    """The rows up to `last`; none if there is no such file. Later ones may be half written: training goes on."""
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row[column].isdecimal() or int(row[column]) > last:
                return
            yield row


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that there are: an undefined measure has none."""
    numbers: Iterable[tuple[str, float]] = ((name, float(value)) for name, value in values.items() if value != "")
    return {name: number for name, number in numbers if isfinite(number)}
