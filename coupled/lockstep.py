"""One step of all arms: all gradients first, so that no arm has moved where one of them cannot."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from coupled.arm import Arm, StepResult
from coupled.failures import RunError
from coupled.process_group import gather_json
from coupled.stream.batches import Batch


class Sums(NamedTuple):
    """Of an arm over the epoch begun: the mean loss so far, as a share of the epoch's, seconds, anchors left out."""

    loss: float = 0.0
    seconds: float = 0.0
    left_out: float = 0.0


class Stopwatch:
    """Seconds that each arm of this rank has taken since they were last read."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def running(self, arm: str) -> Iterator[None]:
        """Add the time within to that of `arm`."""
        began = time.monotonic()
        yield
        self.seconds[arm] = self.seconds.get(arm, 0.0) + time.monotonic() - began

    def read(self) -> dict[str, float]:
        """The seconds, from zero again."""
        seconds, self.seconds = self.seconds, {}
        return seconds


@dataclass
class Attempt:
    """The first half of a step: nothing but gradients and running averages has changed.

    `digests` are those of the inputs, by stream; `error` is what keeps the step from being taken, as the name of an
    exception and its text.
    """

    digests: dict[str, str] = field(default_factory=dict)
    results: dict[str, StepResult] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    wish: int = 0

    def added_to(self, sums: dict[str, list[float]], steps_per_epoch: int) -> dict[str, list[float]]:
        """The sums of the epoch with this step in them."""
        gained = {
            name: Sums(result.loss / steps_per_epoch, self.seconds.get(name, 0.0), result.left_out)
            for name, result in self.results.items()
        }
        return {name: [a + b for a, b in zip(sums[name], more, strict=True)] for name, more in gained.items()}


def attempt(
    arms: Sequence[Arm], batches: Mapping[str, Batch], stream: Mapping[str, str], stopwatch: Stopwatch
) -> Attempt:
    """Loss and gradient of every arm on the batch of its stream; `error` if one is not finite or, then without the arms
    after it, has no loss.
    """
    made = Attempt({name: batch.inputs_digest for name, batch in batches.items()})
    for arm in arms:
        with stopwatch.running(arm.name):
            try:
                made.results[arm.name] = arm.gradients(batches[stream[arm.name]])
            except ValueError as error:
                made.error = ("ValueError", str(error))
                break
    for name, result in made.results.items():
        if result.complaint() and made.error is None:
            made.error = ("FloatingPointError", f"arm '{name}': {result.complaint()}")
    made.seconds = stopwatch.read()
    return made


def of_all_ranks(own: Attempt, owner: bool, names: Sequence[str]) -> Attempt:
    """The attempts of all ranks as one that every rank knows: the results that the owners of the arms `names` have,
    the error of the first rank that has one, the highest wish. Raises `RunError` if a stream differs between ranks.
    """
    told = gather_json([own.results if owner else {}, own.seconds if owner else {}, own.error, own.wish, own.digests])
    digests: dict[str, str] = {}
    for rank, (*_, of_rank) in enumerate(told):
        for name, digest in of_rank.items():
            if digests.setdefault(name, digest) != digest:
                raise RunError(f"rank {rank} sees other inputs than the ranks before it: {digest}, not {digests[name]}")
    results = {name: StepResult(*values) for each in told for name, values in each[0].items()}
    seconds = {name: value for each in told for name, value in each[1].items()}
    errors = [tuple(each[2]) for each in told if each[2]]
    ordered = {name: results[name] for name in names if name in results}
    return Attempt(digests, ordered, seconds, errors[0] if errors else None, max(each[3] for each in told))
