"""Combine the tables of a sweep's runs into one tidy table; compute mean and standard deviation over seeds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from coupled.analysis.tables import newest, read_table
from coupled.config.arm_sections import not_shared_text
from coupled.storage.atomic_files import write_durably
from coupled.sweep.names import keys_name, order, spelled
from coupled.sweep.points import Point, Sweep

FORMAT = "coupled.sweep.1"


class Table(NamedTuple):
    """Which columns of a run's table name the metric and which hold its values."""

    names: tuple[str, ...]  # columns that name the metric; with several value columns, the column's name is appended
    values: tuple[str, ...]


GAPS = Table((), ("gap", "distance", "cosine", "angle", "reference_drift", "arm_drift", "update_cosine"))
TABLES = {
    "weight_gap": GAPS,  # rows of aggregates only
    "weight_gap_permutation": GAPS,
    "weight_gap_growth": Table((), ("slope", "rate", "level", "doubling_time", "rmse")),
    "train_alignment": Table(("metric",), ("value",)),
    "test_alignment": Table(("metric",), ("value",)),
    "quality": Table(("metric",), ("value",)),
    "linear_evaluation": Table(("metric",), ("value",)),
    "pretext": Table(("task",), ("value",)),
    "robustness_mce": Table(("metric", "corruption"), ("value",)),
    "barrier_height": Table(("metric", "align"), ("value",)),
    "collapse": Table(("metric",), ("value",)),
    "losses": Table(("loss",), ("value",)),
    "loss_gap": Table((), ("gap", "bound", "set_bound", "tightness", "set_tightness")),
    "loss_correlation": Table((), ("correlation",)),
    "nscl_reached": Table((), ("nscl", "nscl_direct", "excess", "share")),
    "bounds": Table(("bound", "of"), ("value", "measured")),
}
OF_CLASSIFIER = ("optimizer", "lr", "protocol")  # of linear_evaluation.csv
DETAILS = (
    *("variant", "task", "shots", "k", "component", "model", "direct_arm", "loss_temperature", "fit_epochs"),
    *OF_CLASSIFIER,
)
TEXTS = ("variant", "task", "optimizer", "protocol")  # cells that need no name
PLACES = ("epoch", "split", "reference", "arm", "module", "aggregate", "bound", "of", *DETAILS, "num_images")
COLUMNS = ("run", "table", *PLACES, "metric", "quantity", "value")  # after the swept keys
COUNTS = ("epoch", "shots", "k", "component", "fit_epochs", "num_images")


def write_definition(sweep: Sweep, points: Sequence[Point]) -> None:
    """Write sweep.json, which `collect` and the figures read.

    Raises ValueError if the folder is a run folder, or holds the tables of a sweep over other keys.
    """
    if (sweep.folder / "run.json").is_file():
        raise ValueError(f"--name: '{sweep.folder}' is the folder of a run; choose another name")
    keys = keys_name(key for group in sweep.groups for key in group)
    if (sweep.folder / "sweep.json").exists():
        there = keys_name(key for group in read_definition(sweep.folder)["groups"] for key in group)
        if there != keys:
            over = f"has the keys {there or 'seed'}, this one has {keys or 'seed'}"
            raise ValueError(f"--name: the sweep in '{sweep.folder}' {over}; choose another name")
    content = {
        "format": FORMAT,
        "base": str(sweep.base),
        "factor": sweep.factor,
        "groups": [{key: [*map(spelled, values)] for key, values in group.items()} for group in sweep.groups],
        "figure": sweep.figure.model_dump(mode="json"),
        "arms": points[0].settings["arms"],
        "note": "; ".join(dict.fromkeys(filter(None, (not_shared_text(point.settings) for point in points)))),
        "points": {point.name: point.values for point in points},
    }
    write_durably(sweep.folder / "sweep.json", (json.dumps(content, indent=2) + "\n").encode())


def read_definition(folder: Path) -> dict[str, Any]:
    """Return the content of sweep.json. Raises ValueError if `folder` is not the folder of a sweep."""
    path = folder / "sweep.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, expected {FORMAT}")
        [
            *content["groups"],
            content["factor"],
            content["figure"],
            content["arms"],
            content["note"],
            *content["points"].values(),
        ]
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; '{folder}' is not the folder of a sweep") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a valid description of a sweep: {error}") from None
    return dict(content)


def collect(folder: Path) -> pd.DataFrame:
    """Return all values of the sweep in `folder`, one per row: the swept keys, `seed` and those COLUMNS that apply.

    Weight gaps of single tensors are not included. If rows have the same key, only the newest is kept. Raises
    ValueError if `folder` is not the folder of a sweep, or if a table of a point is damaged.
    """
    points = read_definition(folder)["points"]
    keys = sorted({key for values in points.values() for key in values}, key=order)
    found = [pd.DataFrame(columns=[*keys, *COLUMNS])]  # keeps the columns if no point has a table
    for name, values in points.items():
        cells = {key: value if type(value) in (int, float) else spelled(value) for key, value in values.items()}
        for table, layout in TABLES.items():
            path = folder / name / "analysis" / f"{table}.csv"
            if path.exists():
                rows = read_table(path, (*layout.names, *layout.values))
                if len(rows):
                    found.append(
                        tidy(newest(rows, path.name), layout).assign(**cells, run=str(folder / name), table=table)
                    )
    rows = pd.concat([part for part in found if len(part)] or found, ignore_index=True)
    return rows[[*keys, *COLUMNS]].astype(dict.fromkeys(COUNTS, "Int64"))


def tidy(rows: pd.DataFrame, layout: Table) -> pd.DataFrame:
    """Return the rows of one table of a run with the columns PLACES, metric, quantity and value.

    `quantity` is the name of the value's column in the table. The table's column `temperature` becomes
    `loss_temperature`, because `temperature` is also a settings key.
    """
    if "tensor" in rows:
        rows = rows[rows["aggregate"].notna()]
    parts = []
    for column in layout.values:
        last = [] if column == "value" else [column]
        metric = [_joined((*cells, *last)) for cells in rows[list(layout.names)].itertuples(index=False)]
        there = rows.rename(columns={"temperature": "loss_temperature"})
        if "bound" not in layout.names:
            there = there.drop(columns=["bound"], errors="ignore")  # in loss_gap.csv this column is a value
        parts.append(there.reindex(columns=list(PLACES)).assign(value=rows[column], metric=metric, quantity=column))
    return pd.concat(parts)


def _joined(cells: Sequence[Any]) -> str:
    return "/".join(str(cell) for cell in cells if not pd.isna(cell))


def details(rows: pd.DataFrame) -> "pd.Series[str]":
    """Return for each row the text that distinguishes values of one metric: "euclidean", "nccc shots=5"."""

    def text(cells: Sequence[Any]) -> str:
        known = [(name, cell) for name, cell in zip(DETAILS, cells, strict=True) if not pd.isna(cell)]
        return " ".join(str(cell) if name in TEXTS else f"{name}={spelled(cell)}" for name, cell in known)

    return pd.Series(
        [text(cells) for cells in rows.reindex(columns=list(DETAILS)).itertuples(index=False)], rows.index, dtype=object
    )


def spread(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return `mean`, `sd` (with n - 1; NaN for one seed) and `seeds` of the values that agree in the columns `by`."""
    groups = rows.groupby(list(by), dropna=False, sort=False)["value"]
    return groups.agg(mean="mean", sd="std", seeds="count").reset_index()
