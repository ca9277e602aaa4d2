"""Where training is, and what it writes down of every step and epoch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from coupled.arms import sanity_checks
from coupled.arms.arm import Arm
from coupled.arms.lockstep import StepRecord, Sums
from coupled.arms.monitor import Monitor
from coupled.datasets import AnyImageDataset
from coupled.monitoring.progress import Progress
from coupled.monitoring.signals import Action, StopConditions
from coupled.monitoring.trackers.feed import Feed
from coupled.parallel.failure_broadcast import RunError
from coupled.parallel.process_group import barrier, gather_json
from coupled.storage.checkpoint_writer import CheckpointWriter, replay_path, write_replay
from coupled.storage.checkpoints import Checkpoint
from coupled.storage.run_log import RunLog, digest_column

EpochSums = dict[str, list[float]]  # by arm, as `Sums`


class Outcome(NamedTuple):
    """What stopped a run before its end ("": nothing); whether that was a scheduler's signal, SIGTERM or SIGUSR1."""

    stopped: str = ""
    preempted: bool = False


class PreparedFolder(NamedTuple):
    """A run folder that training may use: its images by split, and on rank 0 run.json and what has changed."""

    splits: Mapping[str, AnyImageDataset]
    description: Mapping[str, Any] = {}
    accepted: Sequence[str] = ()  # changes of the images, accepted by the user
    changed: Sequence[str] = ()  # versions and the like: the last bits may differ


@dataclass
class TrainingState:
    """The steps done, and the sums over the epoch begun. Rank 0 has a log, the owners of arms have a writer."""

    step: int
    sums: EpochSums
    steps_per_epoch: int
    batch_size: int
    streams: Sequence[str]
    learning_rate: Callable[[int], float]
    progress: Progress
    stop_conditions: StopConditions
    log: RunLog | None
    writer: CheckpointWriter | None
    feed: Feed
    monitor: Monitor | None
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def epochs(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps_per_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step was the last of an epoch."""
        return self.step % self.steps_per_epoch == 0

    def action(self, step: int) -> int:
        """What this rank wants to be done after a step."""
        return (
            Action.WRITE_FAILED
            if self.writer and self.writer.background.failed()
            else self.stop_conditions.action(step)
        )

    def add(self, record: StepRecord) -> None:
        """Count a step that was taken, show it and write its row; the first of an epoch begins its sums."""
        if self.ends_epoch:
            self.sums = {name: list(Sums()) for name in self.sums}
        begun = self.epochs * self.steps_per_epoch
        self.step, self.sums = record.step, record.added_to(self.sums, self.steps_per_epoch)
        if record.retry_reason:
            self.progress.warn(f"{record.retry_reason}; repeated, it is finite: a hardware fault is likely")
        images, epoch = (self.step - begun) * self.batch_size, begun // self.steps_per_epoch + 1
        shown = {a: (r.loss, r.grad_norm, images / self.sums[a][1]) for a, r in record.results.items()}
        self.progress.step(epoch, self.step, shown)
        if self.log:
            values = [value for result in record.results.values() for value in result]
            digests = [record.digests[name] for name in self.streams]
            row = [epoch, self.step, *digests, self.learning_rate(self.step), *values]
            self.log.steps.row(row)
            self.feed.step(dict(zip(self.log.steps.columns, row, strict=True)))

    def end_epoch(self, epochs: int, arms: Sequence[Arm], owner: bool) -> None:
        """Write the rows of the epoch that has ended, of so many `epochs`, and warn of left-out anchors and collapse.

        All ranks together; `arms` are those of this rank, and their `owner` speaks for them.
        """
        own = {arm.name: arm.projection_spread() for arm in arms if owner}
        spreads = {name: spread for of_rank in gather_json(own) for name, spread in of_rank.items()}
        images, lr = self.steps_per_epoch * self.batch_size, self.learning_rate(self.step)
        rows = []
        for name, (loss, seconds, skipped) in self.sums.items():
            if self.log:
                row = [self.epochs, name, loss, lr, seconds, images / seconds]
                self.log.epochs.row(row)
                rows.append(dict(zip(self.log.epochs.columns, row, strict=True)))
            self.progress.warn(*sanity_checks.skipped_anchors_message(name, int(skipped), arms[0].views * images))
            self.progress.warn(*sanity_checks.collapse(name, spreads[name]))
        self.feed.epoch(rows)
        losses = {name: loss for name, (loss, _, _) in self.sums.items()}
        self.progress.epoch(self.epochs, epochs, self.step, losses)
        self.measure(arms)

    def measure(self, arms: Sequence[Arm]) -> None:
        """Measure the arms after this epoch, if the settings want that; all ranks together."""
        if self.monitor and self.epochs % self.monitor.every_epochs == 0:
            rows = self.monitor.measure(self.epochs, arms)
            if rows:
                self.feed.monitor(rows)
                self.progress.measured(self.epochs, rows)

    def save(self, arms: Sequence[Arm]) -> None:
        """Have the state of this rank's `arms` written, and the epoch's snapshots if it has just ended."""
        if self.writer:
            states = {arm.name: arm.state() for arm in arms}
            self.writer.save(Checkpoint(self.step, self.epochs, states, self.sums), self.ends_epoch)
        self.feed.flush()
        self.stop_conditions.timer.restart()

    def call_after_epoch(self, function: Callable[[int], None]) -> None:
        """Call `function` with the epoch that has ended and is saved, once all of it is on the disk."""
        if self.writer:
            self.writer.background.finish()
        try:
            function(self.epochs)
        except Exception as error:
            error.add_note(
                f"raised by on_epoch after epoch {self.epochs}, which is saved: resume=True continues the run"
            )
            raise


def abort(
    state: TrainingState, record: StepRecord, epoch: int, arms: Sequence[Arm], run: Path, is_first: bool
) -> NoReturn:
    """Save the state before the step of `record` and its inputs, and raise its error with where it happened.

    All ranks together; `arms` are those of this rank, and the first rank writes the inputs into the folder `run`.
    """
    for arm in arms:
        arm.undo()
    if state.writer:
        state.writer.background.finish()  # if it was the writing that failed, this raises its reason
    if record.action == Action.WRITE_FAILED:
        barrier()  # the rank that could not write reports why meanwhile and ends this one
    if record.error is None:
        raise RunError(f"step {record.step}: stopped because another rank could not write")
    state.save(arms)
    if state.writer:
        state.writer.background.finish()
    step, (kind, text) = record.step, record.error
    results = {name: result._asdict() for name, result in record.results.items()}
    if is_first:
        inputs = {digest_column(name): batch for name, batch in record.inputs.items()}
        write_replay(run, epoch, step, inputs, state.learning_rate(step), text, results)
    barrier()  # all is saved before the first rank tells and ends the others
    where = f"in epoch {epoch}, step {step}: the run stops before this step and its state is saved;"
    then = f"{replay_path(run, step)} has its inputs; train with --resume --max-steps {step} to repeat it"
    raise {"ValueError": ValueError}.get(kind, FloatingPointError)(f"{text} {where} {then}")
