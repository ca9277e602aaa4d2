"""One step of all arms: all gradients first, so that no arm has moved where one of them cannot."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coupled.arm import Arm, StepResult
from coupled.network import shared_tensors
from coupled.process_group import gather_digests
from coupled.snapshots import tensors_digest
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

    def added_to(self, sums: dict[str, list[float]], steps_per_epoch: int) -> dict[str, list[float]]:
        """The sums of the epoch with this step in them."""
        gained = {
            name: Sums(result.loss / steps_per_epoch, self.seconds[name], result.left_out)
            for name, result in self.results.items()
        }
        return {name: [a + b for a, b in zip(sums[name], more, strict=True)] for name, more in gained.items()}


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


def check_equal_start(arms: Sequence[Arm]) -> None:
    """Raise RuntimeError unless the shared tensors of all arms on all ranks have equal bytes."""
    digests = {arm.name: gather_digests(tensors_digest(shared_tensors(arm.network))) for arm in arms}
    expected = digests[arms[0].name][0]
    for name, of_ranks in digests.items():
        for rank, found in enumerate(of_ranks):
            if found != expected:
                raise RuntimeError(
                    f"arm '{name}' on rank {rank} does not start like arm '{arms[0].name}' on rank 0:"
                    f" its shared tensors have digest {found}, expected {expected}"
                )
