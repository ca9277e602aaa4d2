"""The numbers of one step of an arm."""

import math
from typing import NamedTuple


class StepResult(NamedTuple):
    """Mean loss over the global batch, gradient norm before clipping, number of anchors left out of the mean.

    With an online probe also its accuracy on the views of the global batch, before its update.
    """

    loss: float
    grad_norm: float
    skipped_anchors: int
    probe_accuracy: float | None = None

    @classmethod
    def columns(cls, probed: bool) -> tuple[str, ...]:
        """Return the names of the values that are not None, in a run with or without online probes."""
        return cls._fields if probed else cls._fields[:-1]

    def non_finite(self) -> str:
        """Return which value is not finite, such as "loss is nan"; "" if both are finite."""
        named = (("loss", self.loss), ("gradient norm", self.grad_norm))
        return next((f"{what} is {value}" for what, value in named if not math.isfinite(value)), "")
