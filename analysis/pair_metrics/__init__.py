"""Pair metrics: scores of two arms' representations of the same images; one file each, found by its name.

A file `<name>.py` holds
* `TRANSFORM`: which rows the metric sees, a key of `_sums.TRANSFORMS` ("plain" or "unit");
* `RANGE`: the lowest and the highest value it can have;
* `value(xx, yy, xy) -> float`: the score, a pure function of the `Moments` of the first arm with itself, of the
  second with itself, and of the first with the second. NaN where, and only where, its docstring says that the score
  is undefined.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from analysis.pair_metrics._sums import Moments
from coupled.by_name import find, known


@dataclass(frozen=True)
class PairMetric:
    """What a file of this package declares."""

    name: str
    transform: str
    range: tuple[float, float]
    value: Callable[[Moments, Moments, Moments], float]


def metric_names() -> tuple[str, ...]:
    """The pair metrics there are, sorted."""
    return known(__name__)


def find_metrics(names: Iterable[str]) -> list[PairMetric]:
    """The metrics called `names`. Raises ValueError that lists the known ones for a name without a file."""
    modules = {name: find(__name__, name) for name in names}
    return [PairMetric(name, m.TRANSFORM, m.RANGE, m.value) for name, m in modules.items()]
