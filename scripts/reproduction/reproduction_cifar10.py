"""The section "Real images" of docs/reproduction.md: sweeps on CIFAR-10, from the values of every seed and epoch.

Every sweep of SWEEPS has the same blocks on the page, `<!-- SWEEP TABLE -->`. A sweep over a factor has one row for
each of its values. Points that two sweeps share are trained in one of them (TAKEN).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import reproduction_distances as distances
from matplotlib.figure import Figure
from reproduction_claims import growth
from reproduction_figures import against, points
from reproduction_statistics import Answer, captioned, last, markdown, over_seeds, wide
from reproduction_theory import BATCHES, COUNTS, SET, few_shot
from reproduction_trends import NAMES, SCORES, of, trend
from reproduction_values import DIFFERENCE

SWEEP, FLOOR_SWEEP = "cifar10", "cifar10_floor"
FACTORS = {  # the column, the word of the trend, and the label of the axis
    "cifar10_temperature": ("temperature", "as the temperature rises", "temperature"),
    "cifar10_classes": ("dataset.classes", "as the number of classes grows", "number of classes"),
    "cifar10_batch_size": ("batch.size", "as the batch size grows", "images in a batch"),
    "cifar10_gpu": ("encoder.name", "from ResNet-18 to ResNet-50", ""),
}
SWEEPS = (SWEEP, *FACTORS)
FACTORS_HEADING = "Temperature, classes and batch size on CIFAR-10"
HEADINGS = {SWEEP: "Real images: CIFAR-10", **dict.fromkeys(FACTORS, FACTORS_HEADING), "cifar10_gpu": "On a GPU"}


class Taken(NamedTuple):
    """Values that a sweep has from another one: its rows with these cells, and the cells that they get."""

    sweep: str
    cells: Mapping[str, Any]
    becomes: Mapping[str, Any]


BASE = "cifar10_temperature"
TAKEN = {
    SWEEP: Taken(FLOOR_SWEEP, {"arm": distances.FLOOR}, {}),
    "cifar10_classes": Taken(BASE, {"temperature": 0.5}, {"dataset.classes": 10}),
    "cifar10_batch_size": Taken(BASE, {"temperature": 0.5}, {"batch.size": 512}),
}
NOT_MEASURED = "not measured"


def _bounds(values: pd.DataFrame) -> pd.DataFrame:
    return few_shot(values).tables[COUNTS]


def _shots(values: pd.DataFrame) -> pd.DataFrame:
    return few_shot(values).tables[""]


def _losses(values: pd.DataFrame) -> pd.DataFrame:
    names = (DIFFERENCE, BATCHES, SET)
    chosen = values[values["score"].isin(names) & values["arm"].isin(["cl", *distances.ARMS, distances.CEILING])]
    chosen = last(chosen).sort_values("score", key=lambda scores: scores.map(names.index), kind="stable")
    return wide(over_seeds(chosen, ["arm"]))


def _said(sentences: Sequence[str], tables: Mapping[str, pd.DataFrame]) -> str:
    return "\n\n".join(
        ["\n".join(f"* {sentence}" for sentence in sentences), *itertools.starmap(captioned, tables.items())]
    )


TABLES: Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "last": distances.final,
    "nearest": distances.nearest,
    "paired": distances.differences,
    "between": distances.between,
    "bounds": _bounds,
    "shots": _shots,
    "losses": _losses,
}


def joint(values: pd.DataFrame, other: pd.DataFrame, taken: Taken) -> pd.DataFrame:
    """The values of a sweep, with those that it takes from the values of another one instead of its own."""
    added = other[_matches(other, taken.cells)].assign(**taken.becomes).reindex(columns=values.columns)
    return pd.concat([values[~_matches(values, {**taken.cells, **taken.becomes})], added], ignore_index=True)


def _matches(values: pd.DataFrame, cells: Mapping[str, Any]) -> "pd.Series[bool]":
    """Which rows have these cells, of the columns that there are."""
    known = {column: cell for column, cell in cells.items() if column in values}
    return (values[list(known)] == pd.Series(known)).all(axis=1)


def _trend(sweep: str, values: pd.DataFrame) -> Answer:
    factor, word, _ = FACTORS[sweep]
    return trend(last(values), factor, word)


def verdict(sweep: str, values: pd.DataFrame | None) -> str:
    """The line of the summary."""
    if values is None:
        return NOT_MEASURED
    return _trend(sweep, values).summary if sweep in FACTORS else distances.summary(values)


def block(sweep: str, name: str, values: pd.DataFrame | None) -> str:
    """The body of a block: sentences, verdict, table or figure. Raises KeyError for an unknown name."""
    factor, word, _ = FACTORS.get(sweep, ("", "", ""))
    if name == "figure":
        alternative = f"Distances from CL on CIFAR-10 {word}".rstrip()
        return NOT_MEASURED if values is None else f"![{alternative}](reproduction/{sweep}.png)"
    if name == "sentences" and not factor:
        return NOT_MEASURED if values is None else _said(distances.sentences(values), {})
    if name == "growth" and not factor:
        answer = None if values is None else growth(values)
        return NOT_MEASURED if answer is None else _said(answer.sentences, answer.tables)
    if name == "trend" and factor:
        if values is None:
            return NOT_MEASURED
        answer = _trend(sweep, values)
        return _said(answer.sentences, answer.tables)
    if name == "verdict":
        return NOT_MEASURED if values is None else f"**Verdict:** {verdict(sweep, values)}."
    table = TABLES[name]
    if values is None:
        return NOT_MEASURED
    if not factor:
        return markdown(table(values))
    parts = [table(part).assign(**{factor: value}) for value, part in values.groupby(factor, sort=True)]
    joint = pd.concat(parts)
    return markdown(joint[[factor, *joint.columns.drop(factor)]])


def draw(sweep: str, values: pd.DataFrame) -> Figure:
    """The distances over the epochs, or those of NSCL, floor and ceiling against the factor."""
    if sweep == SWEEP:
        return distances.draw(values, "Distance from CL on CIFAR-10 (JPEG); layer h, test images")
    factor, _, label = FACTORS[sweep]
    final = last(of(values, *NAMES))
    epochs = f"{final['epoch'].max():g} epochs"
    title = f"against CL on CIFAR-10 (JPEG) after {epochs}; layer h, test images"
    if not pd.api.types.is_numeric_dtype(final[factor]):
        return points(of(final, "nscl"), factor, SCORES, title=f"NSCL {title}")
    return against(final, factor, SCORES, title=f"Measured {title}", log=(True, False), label=label)
