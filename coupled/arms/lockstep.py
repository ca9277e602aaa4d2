"""Lockstep: every arm takes the same steps, and none is kept that an arm could not take.

Losses and norms are read every k steps, for a GPU has to be waited for to read them. With k = 1 all arms' gradients are
looked at before an arm moves. With k > 1 the arms move on meanwhile; if one of the k steps then turns out not to be
finite, all arms go back to where they were before the first of them, and take them again one by one. An objective may
therefore be called on weights that are NaN already.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from coupled.arms.arm import Arm, StepResult
from coupled.parallel.failure_broadcast import RunError
from coupled.parallel.process_group import ProcessGroup, gather_json
from coupled.stream.batches import Batch

MOST_UNREAD, SECONDS_UNREAD = 10, 2.0  # steps on a GPU if nothing is said: so many, and of no more time together


def log_every_of(given: int | None, on_gpu: bool, seconds: float) -> int:
    """Every how many steps to read: as `given`, else every step on a CPU, and on a GPU by the `seconds` of a step."""
    if given is not None or not on_gpu:
        return given or 1
    return max(1, min(MOST_UNREAD, int(SECONDS_UNREAD / max(seconds, 1e-9))))


class Sums(NamedTuple):
    """Of an arm over the epoch begun: the mean loss so far, as a share of the epoch's, seconds, anchors left out."""

    loss: float = 0.0
    seconds: float = 0.0
    skipped: float = 0.0


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
class StepRecord:
    """A step of all arms: what it saw and gave.

    `inputs` are this rank's batches without their views and `digests` those of the inputs, by stream; `error` is what
    keeps the step from being taken, as the name of an exception and its text; `action` is for what is to be done after
    it; `retry_reason` is what was wrong when the step, or one beside it, was taken before.
    """

    step: int
    inputs: Mapping[str, Batch] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    results: dict[str, StepResult] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    action: int = 0
    retry_reason: str = ""

    def added_to(self, sums: dict[str, list[float]], steps_per_epoch: int) -> dict[str, list[float]]:
        """The sums of the epoch with this step in them."""
        gained = {
            name: Sums(result.loss / steps_per_epoch, self.seconds.get(name, 0.0), result.skipped_anchors)
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
        log_every: int | None,
        names: Sequence[str],
        group: ProcessGroup,
    ) -> None:
        self.arms, self.stream_of, self.learning_rate = arms, stream_of, learning_rate
        self.log_every, self.names, self.group = log_every, names, group
        self.stopwatch, self.step_seconds = Stopwatch(group.device), float("inf")

    def steps(
        self, done: int, last: int, feed: Callable[[int], Iterator[Mapping[str, Batch]]], action: Callable[[int], int]
    ) -> Iterator[StepRecord]:
        """Take the steps after `done` up to `last`, of which `feed(n)` has the batches from step n + 1 on.

        Yields each, as all ranks know it, once it is taken and it is known that it could be. One that cannot be taken
        is yielded as the last, with its `error` and the arms' gradients as they are. `action(n)` is called whenever
        losses are read, after step n; the highest action of all ranks comes with that step.
        """
        careful_until, retry_reason, batches = done, "", feed(done)
        while done < last:
            k = log_every_of(self.log_every, self.stopwatch.on_gpu, self.step_seconds) if done >= careful_until else 1
            window = range(done + 1, min(last, done + k) + 1)
            before = [(arm, arm.kept_state()) for arm in self.arms] if len(window) > 1 else []
            own, numbers = [], []
            for step in window:
                inputs = next(batches)
                own.append(_record(step, inputs))
                for arm in self.arms:
                    with self.stopwatch.running(arm.name):
                        numbers.append(arm.gradients(inputs[self.stream_of[arm.name]]))
                if before:
                    self._update(step)
            records = self._known(own, numbers, action)
            self.step_seconds = sum(records[0].seconds.values())  # the same on every rank
            wrong = next((f"step {each.step}: {each.error[1]}" for each in records if each.error), "")
            if not before and not wrong:
                self._update(done + 1)
            elif before and wrong:
                for arm, state in before:
                    arm.load_state(state)
                careful_until, retry_reason, batches = window[-1], wrong, feed(done)
                continue
            done = window[-1]
            if retry_reason and done == careful_until and not wrong:
                records[-1].retry_reason, retry_reason = retry_reason, ""
            before = []  # not two copies at once
            yield from records

    def _update(self, step: int) -> None:
        for arm in self.arms:
            with self.stopwatch.running(arm.name):
                arm.update(self.learning_rate(step), step)
                arm.perturb_after(step)

    def _known(
        self, own: Sequence[StepRecord], numbers: Sequence[torch.Tensor], action: Callable[[int], int]
    ) -> list[StepRecord]:
        """The steps with their results, which are waited for once, as all ranks know them; `numbers` are those of every
        arm of the first step, then of the next.
        """
        rows = iter(torch.stack(list(numbers)).tolist())
        seconds = {name: value / len(own) for name, value in self.stopwatch.read().items()}
        for record in own:
            record.seconds = seconds
            for arm in self.arms:
                try:
                    record.results[arm.name] = arm.read(next(rows))
                except ValueError as error:
                    record.error = record.error or ("ValueError", str(error))
            for name, result in record.results.items():
                if result.non_finite() and record.error is None:
                    record.error = ("FloatingPointError", f"arm '{name}': {result.non_finite()}")
        record.action = action(record.step)  # now, when the last step has been waited for
        return of_all_ranks(own, self.group.owns_arms, self.names)


def _record(step: int, inputs: Mapping[str, Batch]) -> StepRecord:
    """A step that is under way: what it sees, without the views."""
    seen = {name: replace(b, views_VB3SS=b.views_VB3SS.new_empty(0), local_VB3SS=None) for name, b in inputs.items()}
    return StepRecord(step, seen, {name: batch.inputs_digest for name, batch in inputs.items()})


def of_all_ranks(own: Sequence[StepRecord], owner: bool, names: Sequence[str]) -> list[StepRecord]:
    """The records of all ranks as records that every rank knows: the results that the owners of the arms `names`
    have, the error of the first rank that has one, the highest action. Raises `RunError` if a stream differs between
    ranks.
    """
    gathered = gather_json(
        [[a.results if owner else {}, a.seconds if owner else {}, a.error, a.action, a.digests] for a in own]
    )
    known = []
    for record, *of_ranks in zip(own, *gathered, strict=True):
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
        error, action = errors[0] if errors else None, max(each[3] for each in of_ranks)
        known.append(StepRecord(record.step, record.inputs, digests, ordered, seconds, error, action))
    return known
