"""Arm metrics: scores of one arm's representation, one file per metric, found by its name.

A file `<name>.py` defines
* a function `<name>(...)` of arrays, tensors or blocks of rows, for users;
* `RANGE`: the lowest and the highest possible value;
* `DETAILS`: the names of its values (variants, or the convention of a single value); a `Variant` if a number such as
  `shots` belongs to the name;
* `INVARIANCES`: the transformations of its input that change none of its values, keys of `INVARIANCES` below; or a
  dictionary with those of each value, if they differ;
* `LABELS = False` if it does not need labels;
* `SPLITS = ("train", "test")` for a classifier that may also be scored on the images that it is fitted on;
* `SEES`, its kind of input, and `values(...) -> {detail: Measured}`, a pure function of this input:
  - "classifier": values(train: Labelled, test: Labelled, seed: int), fitted on train and scored on test;
  - "split": values(images: Labelled), the images of one split;
  - "logits": values(images: Labelled), the logits [N, C] of the arm's own classifier on the images of one split;
  - "views": values(views_VND), V augmented views of N images.

A value is `Undefined`, with a reason, exactly in the cases that the docstring of `<name>` lists under "Returns". Rows
are float32 or float64 on the CPU. Shape letters: N images, M test images, D width, C classes, V views.
"""

from math import nan
from typing import NamedTuple

from torch import Tensor

from coupled.metrics import pair

INVARIANCES = pair.INVARIANCES | {"image_order": "a permutation of the images"}  # features are logits for "logits"


class Labelled(NamedTuple):
    """Representations of images and their classes."""

    rows_ND: Tensor
    labels_N: Tensor  # int64


class Measured(NamedTuple):
    """A value, and the standard deviation if the value is a mean over seeded repeats."""

    value: float
    std: float = nan


class Variant(NamedTuple):
    """The columns of quality.csv that distinguish the values of a metric."""

    name: str
    shots: int | str = ""
    k: int | str = ""

    def __str__(self) -> str:
        """The text in a message: `nccc shots=5`."""
        more = (f"{name}={number}" for name, number in (("shots", self.shots), ("k", self.k)) if number)
        return " ".join([self.name, *more])

    @classmethod
    def of(cls, detail: "Variant | str") -> "Variant":
        """The variant of an entry of a metric's `DETAILS`."""
        return detail if isinstance(detail, Variant) else cls(detail)
