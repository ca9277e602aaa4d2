"""Arm metrics: scores of one arm's representation; one file each, found by its name.

A file `<name>.py` holds
* `RANGE`: the lowest and the highest value it can have;
* `DETAILS`: its values by name, which says what differs between them, or the convention if there is but one;
* `SEES`, and `values(...) -> {detail: Measured}`, a pure function of what it sees:
  - "classifier": values(train: Labelled, test: Labelled, seed: int), learns from train and is scored on test;
  - "split": values(images: Labelled), the images of one split;
  - "views": values(views_VND), V augmented views of N images.

A value is `Undefined`, which says why, where and only where the docstring says that there is none. Rows are float32 or
float64 on the CPU. Shape letters: N images, M test images, D width, C classes, V views.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

from torch import Tensor

from coupled.config.by_name import find, known


class Labelled(NamedTuple):
    """Representations of images and the classes of these."""

    rows_ND: Tensor
    labels_N: Tensor  # int64


class Measured(NamedTuple):
    """A value and, if it is the mean of seeded repeats, their standard deviation."""

    value: float
    spread: float = nan


@dataclass(frozen=True)
class ArmMetric:
    """What a file of this package declares."""

    name: str
    sees: str
    details: tuple[str, ...]
    range: tuple[float, float]
    values: Callable[..., dict[str, Measured]]


def metric_names() -> tuple[str, ...]:
    """The arm metrics there are, sorted."""
    return known(__name__)


def find_metrics(names: Iterable[str]) -> list[ArmMetric]:
    """The metrics called `names`. Raises ValueError that lists the known ones for a name without a file."""
    modules = {name: find(__name__, name) for name in names}
    return [ArmMetric(name, m.SEES, m.DETAILS, m.RANGE, m.values) for name, m in modules.items()]
