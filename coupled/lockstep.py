"""Lockstep: every arm takes the same steps, and none is kept that an arm could not take.

Losses and norms are read every k steps, for a GPU has to be waited for to read them. With k = 1 all arms' gradients are
looked at before an arm moves. With k > 1 the arms move on meanwhile; if one of the k steps then turns out not to be
finite, all arms go back to where they were before the first of them, and take them again one by one.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from coupled.arm import Arm, StepResult
from coupled.failures import RunError
from coupled.process_group import ProcessGroup, gather_json
from coupled.stream.batches import Batch


class Sums(NamedTuple):
    """Of an arm over the epoch begun: the mean loss so far, as a share of the epoch's, seconds, anchors left out."""

    loss: float = 0.0
    seconds: float = 0.0
    left_out: float = 0.0


class Stopwatch:
    """Seconds that each arm of this rank has taken since they were last read; on a GPU, of the GPU."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.seconds: dict[str, float] = {}
        self.marks: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self, arm: str) -> Iterator[None]:
        """Add the time of the work within to that of `arm`."""
        if self.on_gpu:
            mark = (arm, torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            mark[1].record()
            yield
            mark[2].record()
            self.marks.append(mark)
        else:
            began = time.monotonic()
            yield
            self._add(arm, time.monotonic() - began)

    def _add(self, arm: str, seconds: float) -> None:
        self.seconds[arm] = self.seconds.get(arm, 0.0) + seconds

    def read(self) -> dict[str, float]:
        """The seconds, from zero again; waits for a GPU to do what it was given."""
        for arm, began, ended in self.marks:
            ended.synchronize()
            self._add(arm, began.elapsed_time(ended) / 1000)
        seconds, self.seconds, self.marks = self.seconds, {}, []
        return seconds


@dataclass
class Attempt:
    """A step of all arms: what it saw and gave.

    `inputs` are this rank's batches and `digests` those of the inputs, by stream; `error` is what keeps the step from
    being taken, as the name of an exception and its text; `wish` is for what is to be done after it.
    """

    step: int
    inputs: Mapping[str, Batch] = field(default_factory=dict)
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


class Lockstep:
    """The arms of this rank and the stream, by name, that each is trained on; `names` are all arms of the run."""

    def __init__(
        self,
        arms: Sequence[Arm],
        stream_of: Mapping[str, str],
        learning_rate: Callable[[int], float],
        read_every: int,
        names: Sequence[str],
        group: ProcessGroup,
    ) -> None:
        self.arms, self.stream_of, self.learning_rate = arms, stream_of, learning_rate
        self.read_every, self.names, self.group = read_every, names, group
        self.stopwatch = Stopwatch(group.device)

    def steps(
        self, done: int, last: int, feed: Callable[[int], Iterator[Mapping[str, Batch]]], wish: Callable[[int], int]
    ) -> Iterator[Attempt]:
        """Take the steps after `done` up to `last`, of which `feed(n)` has the batches from step n + 1 on.

        Yields each, as all ranks know it, once it is taken and it is known that it could be. One that cannot be taken
        is yielded as the last, with its `error` and the arms' gradients as they are. `wish(n)` is asked every
        `read_every` steps, after step n; the highest wish of all ranks comes with that step.
        """
        careful_until, batches = done, feed(done)
        while done < last:
            window = range(done + 1, min(last, done + (self.read_every if done >= careful_until else 1)) + 1)
            before = [(arm, arm.kept_state()) for arm in self.arms] if len(window) > 1 else []
            own = []
            for step in window:
                own.append(self._gradients(step, next(batches)))
                if before:
                    self._update(step)
            made = self._known(own, wish(window[-1]))
            if not before and not made[0].error:
                self._update(done + 1)
            elif before and any(each.error for each in made):
                for arm, state in before:
                    arm.load_state(state)
                careful_until, batches = window[-1], feed(done)
                continue
            yield from made
            done = window[-1]

    def _gradients(self, step: int, inputs: Mapping[str, Batch]) -> tuple[Attempt, list[torch.Tensor]]:
        """Loss and gradient of every arm on the batch of its stream, under way: nothing is waited for."""
        numbers = []
        for arm in self.arms:
            with self.stopwatch.running(arm.name):
                numbers.append(arm.gradients(inputs[self.stream_of[arm.name]]))
        return Attempt(step, inputs, {name: batch.inputs_digest for name, batch in inputs.items()}), numbers

    def _update(self, step: int) -> None:
        for arm in self.arms:
            with self.stopwatch.running(arm.name):
                arm.update(self.learning_rate(step), step)
                arm.perturb_after(step)

    def _known(self, own: Sequence[tuple[Attempt, list[torch.Tensor]]], wish: int) -> list[Attempt]:
        """The steps with their results, which are waited for once, as all ranks know them."""
        rows = iter(torch.stack([numbers_4 for _, numbers in own for numbers_4 in numbers]).tolist())
        seconds = {name: value / len(own) for name, value in self.stopwatch.read().items()}
        for made, _ in own:
            made.seconds = seconds
            for arm in self.arms:
                try:
                    made.results[arm.name] = arm.read(next(rows))
                except ValueError as error:
                    made.error = made.error or ("ValueError", str(error))
            for name, result in made.results.items():
                if result.complaint() and made.error is None:
                    made.error = ("FloatingPointError", f"arm '{name}': {result.complaint()}")
        own[-1][0].wish = wish
        return of_all_ranks([made for made, _ in own], self.group.owns_arms, self.names)


def of_all_ranks(own: Sequence[Attempt], owner: bool, names: Sequence[str]) -> list[Attempt]:
    """The attempts of all ranks as attempts that every rank knows: the results that the owners of the arms `names`
    have, the error of the first rank that has one, the highest wish. Raises `RunError` if a stream differs between
    ranks.
    """
    told = gather_json(
        [[a.results if owner else {}, a.seconds if owner else {}, a.error, a.wish, a.digests] for a in own]
    )
    known = []
    for made, *of_ranks in zip(own, *told, strict=True):
        digests: dict[str, str] = {}
        for rank, (*_, of_rank) in enumerate(of_ranks):
            for name, digest in of_rank.items():
                if digests.setdefault(name, digest) != digest:
                    raise RunError(
                        f"rank {rank} sees other inputs than the ranks before it: {digest}, not {digests[name]}"
                    )
        results = {name: StepResult(*values) for each in of_ranks for name, values in each[0].items()}
        seconds = {name: value for each in of_ranks for name, value in each[1].items()}
        errors = [tuple(each[2]) for each in of_ranks if each[2]]
        ordered = {name: results[name] for name in names if name in results}
        error, wish = errors[0] if errors else None, max(each[3] for each in of_ranks)
        known.append(Attempt(made.step, made.inputs, digests, ordered, seconds, error, wish))
    return known
