"""Pair metrics: scores of two arms' representations of the same images; one file each, found by its name.

A file `<name>.py` holds
* `RANGE`: the lowest and the highest value it can have;
* `DIRECTION`: "higher" if representations that are more alike have the higher value, "lower" if the lower one;
* `INVARIANCES`: what may be done to one of the representations without changing the value, keys of `INVARIANCES` below;
* either `TRANSFORM`, the rows it sees, a key of `_sums.TRANSFORMS`, and `value(xx, yy, xy)`, a pure function of the
  `Moments` of the first arm with itself, of the second with itself, and of the first with the second: such a metric is
  exact over all images in one pass and stores none;
* or `SUBSET`, the most images it looks at, and `value(x_nD, y_nE)`, a pure function of those images' rows: the program
  keeps them for a seeded subset of the images.

`value` is `Undefined`, which says why, where and only where its docstring says that there is no value.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from coupled.config.by_name import find, known

INVARIANCES = {
    "rotation": "an orthogonal map of the features",
    "permutation": "another order of the features",
    "scale": "all rows times one positive number",
    "row_scale": "each row times a positive number of its own",
    "shift": "one vector added to all rows",
    "row_shift": "a number of its own added to all features of each row",
}


@dataclass(frozen=True)
class PairMetric:
    """What a file of this package declares."""

    name: str
    range: tuple[float, float]
    direction: str
    invariances: frozenset[str]
    transform: str  # "" for a metric of a subset
    subset: int | None  # None for a metric that is exact in one pass
    value: Callable[..., float]


def metric_names() -> tuple[str, ...]:
    """The pair metrics there are, sorted."""
    return known(__name__)


def find_metrics(names: Iterable[str]) -> list[PairMetric]:
    """The metrics called `names`. Raises ValueError that lists the known ones for a name without a file."""
    modules = {name: find(__name__, name) for name in names}
    return [
        PairMetric(
            name=name,
            range=module.RANGE,
            direction=module.DIRECTION,
            invariances=frozenset(module.INVARIANCES),
            transform=getattr(module, "TRANSFORM", ""),
            subset=getattr(module, "SUBSET", None),
            value=module.value,
        )
        for name, module in modules.items()
    ]
