"""One step of all arms: all gradients first, so that no arm has moved where one of them cannot."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coupled.arm import Arm, StepResult
from coupled.stream.batches import Batch


class Sums(NamedTuple):
    """Of an arm over the epoch begun: the mean loss so far, as a share of the epoch's, seconds, anchors left out."""

    loss: float = 0.0
    seconds: float = 0.0
    left_out: float = 0.0


@dataclass
class Attempt:
    """The first half of a step: nothing but gradients and running averages has changed."""

    tried: list[Arm] = field(default_factory=list)
    results: dict[str, StepResult] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    error: ValueError | FloatingPointError | None = None

    def said(self) -> list[str] | None:
        """Kind and text of the error, for other ranks."""
        return [type(self.error).__name__, str(self.error)] if self.error else None

    def take(self, lr: float) -> None:
        """The second half: every arm takes its step."""
        for arm in self.tried:
            began = time.monotonic()
            arm.update(lr)
            self.seconds[arm.name] += time.monotonic() - began

    def undo(self) -> None:
        """Make the arms what they were before the step."""
        for arm in self.tried:
            arm.undo()


def attempt(arms: Sequence[Arm], batch: Batch) -> Attempt:
    """Loss and gradient of every arm; `error` if one is not finite or, then without the arms after it, has no loss."""
    made = Attempt()
    for arm in arms:
        began = time.monotonic()
        made.tried.append(arm)
        try:
            made.results[arm.name] = arm.gradients(batch)
        except ValueError as error:
            made.error = error
            return made
        made.seconds[arm.name] = time.monotonic() - began
    for name, result in made.results.items():
        if result.complaint() and made.error is None:
            made.error = FloatingPointError(f"arm '{name}': {result.complaint()}")
    return made


def added(
    sums: Mapping[str, Sequence[float]], results: Mapping[str, StepResult], seconds: Mapping[str, float], steps: int
) -> dict[str, list[float]]:
    """The sums of an epoch of so many `steps`, with the results of one of them."""
    gained = {name: Sums(result.loss / steps, seconds[name], result.left_out) for name, result in results.items()}
    return {name: [a + b for a, b in zip(sums[name], more, strict=True)] for name, more in gained.items()}
