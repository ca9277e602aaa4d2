"""Lockstep: all arms take the same steps; a step that fails for one arm is taken by none.

Losses and gradient norms are read every k steps, because reading them waits for the GPU. With k = 1 the values of all
arms are checked before any arm is updated. With k > 1 the arms are updated first. If one of the k steps turns out to be
non-finite, all arms are rolled back to the state before the first of these steps, and the steps are replayed one by
one. An objective may therefore be called on weights that are already NaN.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from coupled.arms.arm import Arm
from coupled.arms.step_result import StepResult
from coupled.parallel.failure_broadcast import RunError
from coupled.parallel.process_group import ProcessGroup, gather_json
from coupled.stream.batches import Batch

# on a GPU, if `log_every` is not set: at most 10 steps and at most 2 seconds between two readings
MOST_UNREAD, SECONDS_UNREAD = 10, 2.0


def log_every_of(given: int | None, on_gpu: bool, seconds: float) -> int:
    """Return k, the steps between two readings: `given`, else 1 on a CPU, and on a GPU from the `seconds` of a step."""
    if given is not None or not on_gpu:
        return given or 1
    return max(1, min(MOST_UNREAD, int(SECONDS_UNREAD / max(seconds, 1e-9))))


class Sums(NamedTuple):
    """Sums of an arm over the current epoch: loss divided by the steps of an epoch, seconds, skipped anchors."""

    loss: float = 0.0
    seconds: float = 0.0
    skipped: float = 0.0


class Stopwatch:
    """Measures the seconds that each arm of this rank takes; on a GPU, the time of the GPU."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.seconds: dict[str, float] = {}
        self.marks: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self, arm: str) -> Iterator[None]:
        """Add the time of the block to that of `arm`."""
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
        """Return the seconds since the last call and reset them; waits for the GPU."""
        for arm, began, ended in self.marks:
            ended.synchronize()
            self._add(arm, began.elapsed_time(ended) / 1000)
        seconds, self.seconds, self.marks = self.seconds, {}, []
        return seconds


@dataclass
class StepRecord:
    """The inputs and results of one step of all arms.

    `inputs` are this rank's batches without their views, `digests` the digests of the inputs; both by stream. `error`
    is the name and the text of the exception that makes the step fail. `action` is the `Action` after the step.
    `retry_reason` is set if the step was replayed, and says which step failed before and how.
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
        """Return the sums of the epoch with this step added."""
        gained = {
            name: Sums(result.loss / steps_per_epoch, self.seconds.get(name, 0.0), result.skipped_anchors)
            for name, result in self.results.items()
        }
        return {name: [a + b for a, b in zip(sums[name], more, strict=True)] for name, more in gained.items()}


class Lockstep:
    """Takes the steps of this rank's arms. `stream_of` is the stream of each arm, `rate_of` its learning rate by step,
    and `names` are all arms of the run.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        stream_of: Mapping[str, str],
        rate_of: Mapping[str, Callable[[int], float]],
        log_every: int | None,
        names: Sequence[str],
        group: ProcessGroup,
    ) -> None:
        self.arms, self.stream_of, self.rate_of = arms, stream_of, rate_of
        self.log_every, self.names, self.group = log_every, names, group
        self.stopwatch, self.step_seconds = Stopwatch(group.device), float("inf")

    def steps(
        self, done: int, last: int, feed: Callable[[int], Iterator[Mapping[str, Batch]]], action: Callable[[int], int]
    ) -> Iterator[StepRecord]:
        """Take the steps after `done` up to `last`; `feed(n)` yields the batches from step n + 1 on.

        Yields the record of each step, equal on all ranks, once the step was taken and its values are known to be
        finite. A step that fails is yielded last, with its `error`; its update is not applied. `action(n)` is called
        after step n whenever losses are read; the record of that step has the highest action of all ranks.
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
            before = []  # frees the copy before the next one is made
            yield from records

    def _update(self, step: int) -> None:
        for arm in self.arms:
            with self.stopwatch.running(arm.name):
                arm.update(self.rate_of[arm.name](step), step)
                arm.perturb_after(step)

    def _known(
        self, own: Sequence[StepRecord], numbers: Sequence[torch.Tensor], action: Callable[[int], int]
    ) -> list[StepRecord]:
        """Return the records with the results of all ranks, after waiting once for the device.

        `numbers` are those of every arm for the first step, then for the next step, and so on.
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
        record.action = action(record.step)  # only after the device has finished the last step
        return of_all_ranks(own, self.group.owns_arms, self.names)


def _record(step: int, inputs: Mapping[str, Batch]) -> StepRecord:
    """Return the record of a step with its inputs, without the views."""
    seen = {name: replace(b, views_VB3SS=b.views_VB3SS.new_empty(0), local_VB3SS=None) for name, b in inputs.items()}
    return StepRecord(step, seen, {name: batch.inputs_digest for name, batch in inputs.items()})


def of_all_ranks(own: Sequence[StepRecord], owner: bool, names: Sequence[str]) -> list[StepRecord]:
    """Combine the records of all ranks into records that are equal on every rank.

    A combined record has the results of the arms `names` from the ranks that own them, the error of the first rank that
    has one, and the highest action. Raises `RunError` if a stream differs between ranks.
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
                        f"step {record.step}: rank {rank} has other inputs than the ranks before it: digest {digest},"
                        f" expected {digests[name]}; all ranks need the same images and the same library versions"
                    )
        results = {name: StepResult(*values) for each in of_ranks for name, values in each[0].items()}
        seconds = {name: value for each in of_ranks for name, value in each[1].items()}
        errors = [tuple(each[2]) for each in of_ranks if each[2]]
        ordered = {name: results[name] for name in names if name in results}
        error, action = errors[0] if errors else None, max(each[3] for each in of_ranks)
        known.append(StepRecord(record.step, record.inputs, digests, ordered, seconds, error, action))
    return known
