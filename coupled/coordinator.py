"""The coordinator: builds identical arms, proves it, and feeds each the same batches; snapshots and resume.

A rank trains the arms of its place; rank 0 keeps the logs of all. All ranks together call every method that gathers.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn

from coupled.arms import sanity_checks
from coupled.arms.arm import StepResult
from coupled.arms.build import build_arms
from coupled.arms.consistency import check_no_drift, check_same_folder
from coupled.arms.feeds import digest_column, feeds
from coupled.arms.lockstep import Lockstep, StepRecord, Sums
from coupled.arms.summary import announce, bytes_needed, description
from coupled.arms.training_state import EpochSums, Outcome, TrainingState
from coupled.config.controls import streams
from coupled.config.registry import load_dataset
from coupled.config.schema import Settings
from coupled.models.optimizer import learning_rate, peak_learning_rate
from coupled.monitoring.progress import Progress
from coupled.monitoring.signals import Action, StopConditions, StopSignals, Timer, check_max_steps, stop_now
from coupled.parallel.failure_broadcast import RunError
from coupled.parallel.process_group import ProcessGroup, barrier
from coupled.storage import checkpoints
from coupled.storage.checkpoint_writer import (
    NO_CHECKPOINT,
    Position,
    open_files,
    replay_path,
    write_replay,
)
from coupled.storage.checkpoints import Checkpoint
from coupled.storage.dataset_record import check_same_images, record_images
from coupled.storage.image_check import both_splits
from coupled.storage.run_lock import run_lock
from coupled.storage.run_log import check_folder, prepare_folder, space, was_started_by
from coupled.storage.snapshots import snapshot_epochs
from coupled.stream.batches import Batch, on_device


class Coordinator:
    """Trains the arms of `settings` in lockstep, in the process group `group`, into the folder `run`."""

    def __init__(self, settings: Settings, group: ProcessGroup, run: Path) -> None:
        self.settings, self.group, self.run = settings, group, run
        if not group.is_first:
            barrier()  # rank 0 loads first: it may have to download or to fill a cache
        self._load = partial(load_dataset, settings.dataset.model_dump(), seed=settings.seed)
        self.images = self._load("train")
        if group.is_first:
            barrier()
        size = settings.batch.size
        sanity_checks.check_batch_size(size, group.data_size, self.images.name, len(self.images))
        self.steps_per_epoch = len(self.images) // size
        self.steps = settings.epochs * self.steps_per_epoch
        self.peak_lr = peak_learning_rate(settings.optimizer.base_lr, settings.optimizer.lr_scaling, size)
        self.learning_rate = partial(
            learning_rate,
            peak=self.peak_lr,
            steps_per_epoch=self.steps_per_epoch,
            epochs=settings.epochs,
            warmup_epochs=settings.optimizer.warmup_epochs,
            schedule=settings.optimizer.schedule,
        )
        self.all_arms = arms = build_arms(settings, group, len(self.images.class_names))
        self.arms, self.stream_of = arms.own, streams(arms.draws)
        kind = group.device.type
        self.warnings = sanity_checks.before_start(settings.resolved(), arms.objectives, arms.draws, self.images, kind)
        self.feeds = partial(
            feeds,
            images=on_device(self.images, group.device),  # once for all epochs and streams
            streams={self.stream_of[arm.name]: arms.draws[arm.name] for arm in self.arms},
            seed=settings.seed,
            batch_size=size,
            kind=settings.batch.sampler,
            augmentation=settings.augmentation.plain(),
            size=settings.image_size,
            rank=group.data_rank,
            world_size=group.data_size,
            device=group.device,
            workers=settings.dataset.num_workers,
        )
        about = (settings.log_every, list(settings.arms), group)
        self.lockstep = Lockstep(self.arms, self.stream_of, self.learning_rate, *about)
        kept = settings.snapshots
        self.kept_epochs = snapshot_epochs(settings.epochs, kept.every_epochs, kept.dense_until_epoch)

    def train(
        self, resume: bool = False, overwrite: bool = False, max_steps: int | None = None, accept_images: bool = False
    ) -> Outcome:
        """Train to the last epoch, or to where the run is stopped; its state is then saved.

        SIGTERM, SIGINT or SIGUSR1 to any rank stops the run when losses are next read, `max_steps` after that step.

        Args:
            resume: continue the run in the folder, or start it if none is there.
            overwrite: delete the run in the folder and start afresh.
            max_steps: stop after this step of the run, to be continued.
            accept_images: continue although the images have changed since the run began.

        Raises:
            ValueError: if a run is in the way or cannot be resumed.
            FloatingPointError: if an arm's loss or gradient is not finite; it names arm, epoch and step.
            OSError: if something cannot be written.
        """
        epochs, per_epoch = self.settings.epochs, self.steps_per_epoch
        with contextlib.ExitStack() as opened:
            state = self._start(opened, resume, overwrite, max_steps, accept_images)
            self._save(state)
            state.progress.begin()
            for epoch in range(state.epochs + 1, epochs + 1):
                last = min(epoch * per_epoch, max_steps or self.steps)
                for record in self.lockstep.steps(state.step, last, partial(self._batches_after, epoch), state.action):
                    if record.error or record.action == Action.BROKEN:
                        self._give_up(state, record, epoch)
                    state.add(record)
                    if state.ends_epoch:
                        check_no_drift({arm.name: arm.network.state_dict() for arm in self.arms}, epoch)
                        state.end_epoch(epochs, self.arms, self.group.owns_arms)
                    if state.ends_epoch or record.action >= Action.SAVE:
                        self._save(state)
                    if record.action in (Action.STOP, Action.PREEMPTED) and state.step < self.steps:
                        why = state.stop_conditions.reason(state.step)
                        stopped = f"stopped by {why} after step {state.step} of {self.steps}"
                        state.outcome = Outcome(stopped, record.action == Action.PREEMPTED)
                        break
                if state.outcome.stopped:
                    break
            if state.writer:
                state.writer.background.finish()
            barrier()
        return state.outcome

    def _start(
        self, opened: contextlib.ExitStack, resume: bool, overwrite: bool, max_steps: int | None, accept_images: bool
    ) -> TrainingState:
        """Prepare the run folder and continue what is in it; all that is to be closed again enters `opened`."""
        launch = self.group.launch
        if launch.restarts and was_started_by(self.run, launch.name, launch.agents):
            resume, overwrite = True, False  # the launcher started the ranks again after a failure
        settings, first = self.settings, self.group.is_first
        folder = (self.run, settings.resolved(), resume, overwrite, settings.may_change())
        check_folder(*folder)
        check_max_steps(max_steps, 0, self.steps)
        if not resume:
            self._space(0, overwrite)
        both = both_splits(self.images, self._load, self.group, settings.dataset.num_workers)
        barrier()  # before rank 0 writes into it
        changed, accepted = list[str](), list[str]()
        if first:
            opened.enter_context(run_lock(self.run))
            check_folder(*folder)  # again: another process may have begun before this one held the lock
            about = description(folder[1], settings.sha256(), both, self.group, self.all_arms.placed)
            accepted = check_same_images(self.run, about, both, accept_images) if resume else []
            changed = prepare_folder(self.run, about, resume)
        barrier()
        saved, sums = self._continue(max_steps)
        step = max(saved.step, 0)
        if first:
            record_images(self.run, about, both, step if accepted else None)
        timer = Timer(settings.checkpoint.every_minutes if first else None)
        progress = opened.enter_context(Progress(list(sums), step, self.steps, first))
        newest = partial(checkpoints.newest_step, self.run / "checkpoints")
        signals = opened.enter_context(StopSignals(progress.say, partial(stop_now, progress, newest)))
        left = self._space(step // self.steps_per_epoch, overwrite=False)
        if first:
            announce(progress, self.run, both, folder[1], step, self.peak_lr, self.group, self.all_arms, left)
        progress.warn(*self.warnings, *accepted, *changed)
        about_run = {"run": settings.name, "settings_sha256": settings.sha256()}
        digests = list(map(digest_column, dict.fromkeys(self.stream_of.values())))
        log, writer = open_files(
            opened, self.run, self.group, about_run, list(sums), digests, StepResult._fields, self.kept_epochs, saved
        )
        progress.warn(*(log.warnings if log else ()))
        return TrainingState(
            step=step,
            sums=sums,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=settings.batch.size,
            streams=list(dict.fromkeys(self.stream_of.values())),
            learning_rate=self.learning_rate,
            progress=progress,
            stop_conditions=StopConditions(signals, timer, max_steps),
            log=log,
            writer=writer,
        )

    def _continue(self, max_steps: int | None) -> tuple[Position, EpochSums]:
        """Give the arms the newest checkpoint, if any; where it was saved, and the sums of its epoch.

        Raises ValueError if it cannot go on.
        """
        own = [arm.name for arm in self.arms]
        done = checkpoints.read_newest(self.run / "checkpoints", self.settings.sha256(), own)
        saved = Position(done.epoch, done.step) if done else NO_CHECKPOINT
        check_same_folder(self.run, saved.step)
        if saved.step > self.steps:
            raise ValueError(f"epochs: got {self.settings.epochs}; the run has done {saved.epoch} already")
        check_max_steps(max_steps, max(saved.step, 0), self.steps)
        sums = {name: list(Sums()) for name in self.settings.arms}
        if done:
            for arm in self.arms:
                arm.load_state(done.arms[arm.name])
            sums |= done.sums
        return saved, sums

    def _batches_after(self, epoch: int, step: int) -> Iterator[dict[str, Batch]]:
        return self.feeds(epoch, step - (epoch - 1) * self.steps_per_epoch)

    def _give_up(self, state: TrainingState, record: StepRecord, epoch: int) -> NoReturn:
        """Save the state before the step and what the step saw, and raise its error with where it happened."""
        step = record.step
        for arm in self.arms:
            arm.undo()
        if state.writer:
            state.writer.background.finish()  # if it was the writing that failed, this raises its reason
        if record.action == Action.BROKEN:
            barrier()  # the rank that could not write reports why meanwhile and ends this one
        if record.error is None:
            raise RunError(f"step {step}: stopped because another rank could not write")
        self._save(state)
        if state.writer:
            state.writer.background.finish()
        kind, text = record.error
        results = {name: result._asdict() for name, result in record.results.items()}
        if self.group.is_first:
            seen = {digest_column(name): batch for name, batch in record.inputs.items()}
            write_replay(self.run, epoch, step, seen, self.learning_rate(step), text, results)
        barrier()  # all is saved before the first rank tells and ends the others
        where = f"in epoch {epoch}, step {step}: the run stops before this step and its state is saved;"
        then = f"{replay_path(self.run, step)} says what it saw; --resume --max-steps {step} comes here again"
        raise {"ValueError": ValueError}.get(kind, FloatingPointError)(f"{text} {where} {then}")

    def _save(self, state: TrainingState) -> None:
        """Have the state after this step written, and the epoch's snapshots if it has just ended."""
        if state.writer:
            states = {arm.name: arm.state() for arm in self.arms}
            state.writer.save(Checkpoint(state.step, state.epochs, states, state.sums), state.ends_epoch)
        state.stop_conditions.timer.restart()

    def _space(self, epoch: int, overwrite: bool) -> str:
        """A line on the bytes that the run still needs after `epoch`. Raises ValueError if they are not there."""
        needed = bytes_needed(self.all_arms, self.kept_epochs, epoch)
        return space(self.run, needed, overwrite, self.settings.snapshots.check_free_space)
