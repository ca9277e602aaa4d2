"""The training loop: step by step, all arms in lockstep, until the last epoch or until it is told to stop.

Every method is called by all ranks together: ranks agree after each step what is done next.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from coupled import watch
from coupled.agreement import check_no_drift, of_all_arms
from coupled.arm import Arm, StepResult
from coupled.failures import RunError
from coupled.keeping import Keeper, write_replay
from coupled.lockstep import Attempt, Sums, added, attempt
from coupled.process_group import ProcessGroup, barrier, gather_json, highest_over_ranks
from coupled.progress import Progress
from coupled.resume_state import ResumeState
from coupled.run_log import RunLog
from coupled.stopping import FAILED, SAVE, STOP, Wishes
from coupled.stream.batches import Batch

ERRORS = {"ValueError": ValueError, "FloatingPointError": FloatingPointError}


@dataclass
class Loop:
    """`names` are the arms of all ranks, `arms` those of this one; `sums` are of the epoch begun."""

    run: Path
    group: ProcessGroup
    names: Sequence[str]
    arms: Sequence[Arm]
    batches: Callable[[int, int], Iterator[Batch]]  # epoch, number of the first batch
    learning_rate: Callable[[int], float]
    batch_size: int
    steps_per_epoch: int
    epochs: int
    keeper: Keeper
    log: RunLog | None  # rank 0's
    wishes: Wishes
    progress: Progress
    sums: dict[str, list[float]]

    def train_from(self, step: int) -> str:
        """Train from `step` steps done; "" at the end of the last epoch, otherwise what stopped the run before it."""
        self.stopped = ""
        self._keep(step)
        while step < self.epochs * self.steps_per_epoch and not self.stopped:
            step = self._epoch(step)
        self.keeper.finish()
        barrier()
        return self.stopped

    def _epoch(self, step: int) -> int:
        """Train to the end of the epoch or to where the run is stopped; the steps done."""
        epoch, start = step // self.steps_per_epoch + 1, step % self.steps_per_epoch
        if start == 0:
            self.sums = {name: list(Sums()) for name in self.names}
        for batch in self.batches(epoch, start):
            step += 1
            results, word = self._step(batch, step)
            images = (batch.number + 1) * self.batch_size
            shown = {name: (r.loss, r.grad_norm, images / self.sums[name][1]) for name, r in results.items()}
            self.progress.step(epoch, step, shown)
            if self.log:
                values = [value for result in results.values() for value in result]
                self.log.steps.row([epoch, step, batch.inputs_digest, self.learning_rate(step), *values])
            if step % self.steps_per_epoch == 0:
                self._end_epoch(epoch, step)
            elif word >= SAVE:
                self._keep(step)
            last = self.epochs * self.steps_per_epoch
            if word == STOP and step < last:
                self.stopped = f"stopped by {self.wishes.why(step)} after step {step} of {last}"
                break
        return step

    def _step(self, batch: Batch, step: int) -> tuple[dict[str, StepResult], int]:
        """All arms' step, and what is to be done after it: the highest wish of all ranks."""
        made = attempt(self.arms, batch)
        failed = made.error or self.keeper.behind.failed()
        word, busy = highest_over_ranks([FAILED if failed else self.wishes.after(step), self.keeper.busy()])
        if word == FAILED:
            self._give_up(batch, step, made)
        made.take(self.learning_rate(step))
        if not busy:
            self.keeper.settle()
        of_all = self._of_all_arms({name: [result, made.seconds[name]] for name, result in made.results.items()})
        results = {name: StepResult(*values) for name, (values, _) in of_all.items()}
        seconds = {name: taken for name, (_, taken) in of_all.items()}
        self.sums = added(self.sums, results, seconds, self.steps_per_epoch)
        return results, word

    def _give_up(self, batch: Batch, step: int, made: Attempt) -> NoReturn:
        """Save the state before the step and what the step saw, and raise its error with where it happened."""
        made.undo()
        self.keeper.behind.finish()  # if it was the writing that failed, this raises its reason
        said = [error for error in gather_json(made.said()) if error]
        if not said:
            barrier()  # the rank whose writing failed says why, and ends this one
            raise RunError(f"step {step}: another rank failed")
        results = self._of_all_arms({name: result._asdict() for name, result in made.results.items()})
        self._keep(step - 1)
        self.keeper.finish()
        kind, text = said[0]
        text = f"{text} in epoch {batch.epoch}, step {step}: the run stops before this step, its state is saved"
        if self.group.is_first:
            path = write_replay(self.run, batch, step, self.learning_rate(step), text, results)
            text += f"; {path} says what it saw; --resume --until-step {step} comes here again"
        raise ERRORS[kind](text)

    def _end_epoch(self, epoch: int, step: int) -> None:
        check_no_drift({arm.name: arm.network.state_dict() for arm in self.arms}, f"after epoch {epoch}")
        images = self.steps_per_epoch * self.batch_size
        spreads = self._of_all_arms({arm.name: arm.projection_spread() for arm in self.arms})
        losses = {}
        for name, values in self.sums.items():
            losses[name], seconds, left_out = Sums(*values)
            if self.log:
                rate = images / seconds
                self.log.epochs.row([epoch, name, losses[name], self.learning_rate(step), seconds, rate])
            warnings = watch.left_out_anchors(name, int(left_out), 2 * images)
            self.progress.warn(*warnings, *watch.collapse(name, spreads[name]))
        self._keep(step)
        self.progress.epoch(epoch, self.epochs, step, losses)

    def _keep(self, step: int) -> None:
        """Have the state after `step` steps written by the owners of the arms."""
        own = {arm.name: arm.state() for arm in self.arms} if self.group.owns_arms else {}
        state = ResumeState(step, step // self.steps_per_epoch, own, self.sums)
        self.keeper.keep(state, ends_epoch=step % self.steps_per_epoch == 0)
        self.wishes.clock.restart()

    def _of_all_arms(self, own: dict[str, Any]) -> dict[str, Any]:
        return of_all_arms(own, self.group.owns_arms, self.names) if self.group.arms_size > 1 else own
