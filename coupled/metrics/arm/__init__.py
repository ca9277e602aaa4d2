"""Arm metrics: scores of one arm's representation; one file each, found by its name.

A file `<name>.py` holds
* `RANGE`: the lowest and the highest value it can have;
* `DETAILS`: its values by name, which says what differs between them, or the convention if there is but one; a
  `Variant` where a number belongs to it;
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
    std: float = nan


class Variant(NamedTuple):
    """What tells the values of a metric apart: columns of quality.csv."""

    name: str
    shots: int | str = ""
    k: int | str = ""

    def __str__(self) -> str:
        """As a message has it: `nccc shots=5`."""
        more = (f"{name}={number}" for name, number in (("shots", self.shots), ("k", self.k)) if number)
        return " ".join([self.name, *more])

    @classmethod
    def of(cls, detail: "Variant | str") -> "Variant":
        """The variant that a metric calls so."""
        return detail if isinstance(detail, Variant) else cls(detail)


@dataclass(frozen=True)
class ArmMetric:
    """What a file of this package declares."""

    name: str
    sees: str
    variants: tuple[Variant, ...]
    range: tuple[float, float]
    values: Callable[..., dict[str | Variant, Measured]]

    def measured(self, *seen: object) -> dict[Variant, Measured]:
        """Its values of what it sees."""
        return {Variant.of(detail): value for detail, value in self.values(*seen).items()}


def metric_names() -> tuple[str, ...]:
    """The arm metrics there are, sorted."""
    return known(__name__)


def find_metrics(names: Iterable[str]) -> list[ArmMetric]:
    """The metrics called `names`. Raises ValueError that lists the known ones for a name without a file."""
    modules = {name: find(__name__, name) for name in names}
    return [
        ArmMetric(name, m.SEES, tuple(map(Variant.of, m.DETAILS)), m.RANGE, m.values) for name, m in modules.items()
    ]
