"""Arm metrics: scores of one arm's representation; one file each, found by its name.

A file `<name>.py` holds
* a function `<name>(...)` of arrays, tensors or blocks of rows, for users;
* `RANGE`: the lowest and the highest value it can have;
* `DETAILS`: its values by name, which says what differs between them, or the convention if there is but one; a
  `Variant` where a number belongs to it;
* `LABELS = False` if it sees labels and does not need them;
* `SEES`, and `values(...) -> {detail: Measured}`, a pure function of what it sees:
  - "classifier": values(train: Labelled, test: Labelled, seed: int), learns from train and is scored on test;
  - "split": values(images: Labelled), the images of one split;
  - "views": values(views_VND), V augmented views of N images.

A value is `Undefined`, which says why, where and only where the docstring says that there is none. Rows are float32 or
float64 on the CPU. Shape letters: N images, M test images, D width, C classes, V views.
"""

from math import nan
from typing import NamedTuple

from torch import Tensor


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
