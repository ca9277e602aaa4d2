"""The state of a running training: the steps done, and what is written after every step and epoch."""

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
    """What stopped a run before its end ("": nothing), and how.

    preempted: by a scheduler's signal, SIGTERM or SIGUSR1.
    asked: by `max_steps`.
    """

    stopped: str = ""
    preempted: bool = False
    asked: bool = False


class PreparedFolder(NamedTuple):
    """A run folder that training may use: the images by split; on rank 0 also run.json and what has changed."""

    splits: Mapping[str, AnyImageDataset]
    description: Mapping[str, Any] = {}
    accepted: Sequence[str] = ()  # changes of the images, accepted by the user
    changed: Sequence[str] = ()  # changed versions or machine: the last bits of results may differ


@dataclass
class TrainingState:
    """The steps done and the sums over the current epoch. Rank 0 has a log; ranks that own arms have a writer."""

    step: int
    sums: EpochSums
    steps_per_epoch: int
    batch_size: int
    streams: Sequence[str]
    learning_rate: Callable[[int], float]  # of the shared settings
    rate_of: Mapping[str, Callable[[int], float]]  # of each arm
    progress: Progress
    stop_conditions: StopConditions
    log: RunLog | None
    writer: CheckpointWriter | None
    feed: Feed
    monitor: Monitor | None
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def epochs(self) -> int:
        """Number of completed epochs."""
        return self.step // self.steps_per_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step was the last of an epoch."""
        return self.step % self.steps_per_epoch == 0

    def action(self, step: int) -> int:
        """Return the `Action` that this rank asks for after a step."""
        return (
            Action.WRITE_FAILED
            if self.writer and self.writer.background.failed()
            else self.stop_conditions.action(step)
        )

    def add(self, record: StepRecord) -> None:
        """Count a step, show it and write its row; the first step of an epoch resets the sums."""
        if self.ends_epoch:
            self.sums = {name: list(Sums()) for name in self.sums}
        begun = self.epochs * self.steps_per_epoch
        self.step, self.sums = record.step, record.added_to(self.sums, self.steps_per_epoch)
        if record.retry_reason:
            self.progress.warn(
                f"{record.retry_reason}; replaying the step gave finite values. This points to a hardware or driver"
                " fault.",
                always=True,
            )
        images, epoch = (self.step - begun) * self.batch_size, begun // self.steps_per_epoch + 1
        shown = {a: (r.loss, r.grad_norm, images / self.sums[a][1]) for a, r in record.results.items()}
        self.progress.step(epoch, self.step, shown)
        if self.log:
            values = [value for result in record.results.values() for value in result if value is not None]
            digests = [record.digests[name] for name in self.streams]
            rates = [self.learning_rate(self.step), *(self.rate_of[arm](self.step) for arm in self.log.own_rates)]
            row = [epoch, self.step, *digests, *rates, *values]
            self.log.steps.row(row)
            self.feed.step(dict(zip(self.log.steps.columns, row, strict=True)))

    def end_epoch(self, epochs: int, arms: Sequence[Arm], owner: bool) -> None:
        """Write the rows of the completed epoch, and warn of skipped anchors and of collapse.

        Called by all ranks together. `epochs` is the number of epochs of the run, `arms` are those of this rank, and
        `owner` says whether this rank reports for them.
        """
        own = {arm.name: arm.projection_spread() for arm in arms if owner}
        spreads = {name: spread for of_rank in gather_json(own) for name, spread in of_rank.items()}
        images = self.steps_per_epoch * self.batch_size
        rows = []
        for name, (loss, seconds, skipped) in self.sums.items():
            if self.log:
                row = [self.epochs, name, loss, self.rate_of[name](self.step), seconds, images / seconds]
                self.log.epochs.row(row)
                rows.append(dict(zip(self.log.epochs.columns, row, strict=True)))
            self.progress.warn(*sanity_checks.skipped_anchors_message(name, int(skipped), arms[0].views * images))
            self.progress.warn(*sanity_checks.collapse(name, spreads[name]))
        self.feed.epoch(rows)
        losses = {name: loss for name, (loss, _, _) in self.sums.items()}
        self.progress.epoch(self.epochs, epochs, self.step, losses)
        self.measure(arms)

    def measure(self, arms: Sequence[Arm]) -> None:
        """Measure the arms if the monitor is due after this epoch. Called by all ranks together."""
        if self.monitor and self.epochs % self.monitor.every_epochs == 0:
            rows = self.monitor.measure(self.epochs, arms)
            if rows:
                self.feed.monitor(rows)
                self.progress.measured(self.epochs, rows)

    def stop(self, action: int, steps: int) -> None:
        """Note what has stopped the run of so many steps."""
        reason = f"stopped by {self.stop_conditions.reason(self.step)} after step {self.step} of {steps}"
        self.outcome = Outcome(reason, action == Action.PREEMPTED, self.step == self.stop_conditions.max_steps)

    def save(self, arms: Sequence[Arm]) -> None:
        """Queue a checkpoint of this rank's `arms`, and the epoch's snapshots if an epoch has just ended."""
        if self.writer:
            states = {arm.name: arm.state() for arm in arms}
            self.writer.save(Checkpoint(self.step, self.epochs, states, self.sums), self.ends_epoch)
        self.feed.flush()
        self.stop_conditions.timer.restart()

    def call_after_epoch(self, function: Callable[[int], None]) -> None:
        """Wait until the completed epoch is on the disk, then call `function` with its number."""
        if self.writer:
            self.writer.background.finish()
        try:
            function(self.epochs)
        except Exception as error:
            error.add_note(
                f"raised by on_epoch after epoch {self.epochs}; this epoch is saved, and resume=True continues the run"
            )
            raise


def abort(
    state: TrainingState, record: StepRecord, epoch: int, arms: Sequence[Arm], run: Path, is_first: bool
) -> NoReturn:
    """Save the state before the failed step of `record`, save the inputs of the step, and raise its error.

    Called by all ranks together. `arms` are those of this rank; the first rank writes the inputs to the folder `run`.
    """
    for arm in arms:
        arm.undo()
    if state.writer:
        state.writer.background.finish()  # raises the reason if writing failed
    if record.action == Action.WRITE_FAILED:
        barrier()  # meanwhile the rank that could not write reports its error and ends this one
    if record.error is None:
        raise RunError(f"step {record.step}: the run stopped because another rank could not write its files")
    state.save(arms)
    if state.writer:
        state.writer.background.finish()
    step, (kind, text) = record.step, record.error
    results = {name: result._asdict() for name, result in record.results.items()}
    if is_first:
        inputs = {digest_column(name): batch for name, batch in record.inputs.items()}
        write_replay(run, epoch, step, inputs, state.learning_rate(step), text, results)
    barrier()  # everything is saved before the first rank reports the error and ends the others
    message = (
        f"{text}. The run stopped before step {step} (epoch {epoch}) and saved its state. The inputs of the step are in"
        f" {replay_path(run, step)}. To repeat the step, train with --resume --max-steps {step}"
    )
    if kind == "ValueError":
        raise ValueError(message)
    raise FloatingPointError(
        f"{message}; if it fails again, start a new run with a smaller optimizer.base_lr or with"
        " optimizer.clip_grad_norm"
    )
