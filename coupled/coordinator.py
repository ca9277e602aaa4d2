"""Train all arms of a run in lockstep: build identical arms, feed each the same batches, save, resume and stop.

Each rank trains the arms that are placed on it; rank 0 writes the logs of all arms. All ranks together call every
method that gathers.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from coupled.arms import sanity_checks
from coupled.arms.build import build_arms
from coupled.arms.consistency import check_no_drift, check_same_folder
from coupled.arms.lockstep import Lockstep, Sums
from coupled.arms.monitor import open_monitor
from coupled.arms.step_result import StepResult
from coupled.arms.summary import announce, bytes_needed, description
from coupled.arms.training_state import EpochSums, Outcome, PreparedFolder, TrainingState, abort
from coupled.config.controls import streams
from coupled.config.registry import load_dataset, load_train_images
from coupled.config.schema import Settings
from coupled.models.memory import memory_errors
from coupled.models.schedules import peak_learning_rate, schedule_of
from coupled.monitoring.progress import Progress
from coupled.monitoring.signals import Action, StopConditions, StopSignals, Timer, check_max_steps, end_at_once
from coupled.monitoring.trackers import check_installed
from coupled.monitoring.trackers.feed import Feed
from coupled.monitoring.trackers.points import Layout
from coupled.parallel.process_group import ProcessGroup, barrier
from coupled.storage import checkpoints
from coupled.storage.checkpoint_writer import NO_CHECKPOINT, Position, open_files
from coupled.storage.dataset_record import check_same_images, colours, record_images
from coupled.storage.image_check import both_splits
from coupled.storage.run_lock import run_lock
from coupled.storage.run_log import check_folder, digest_column, prepare_folder, space, was_started_by
from coupled.storage.snapshots import snapshot_epochs
from coupled.stream.batches import Batch, on_device, step_batches


class Coordinator:
    """Train the arms of `settings` in lockstep, in the process group `group`, into the folder `run`."""

    @memory_errors()
    def __init__(self, settings: Settings, group: ProcessGroup, run: Path) -> None:
        self.settings, self.group, self.run = settings, group, run
        if not group.is_first:
            barrier()  # rank 0 loads first, because it may download files or fill a cache
        self._load = partial(load_dataset, settings.dataset.model_dump(), seed=settings.seed)
        self.images, self.train_split = load_train_images(settings.dataset.model_dump(), settings.seed)
        if group.is_first:
            barrier()
        size = settings.batch.size
        sanity_checks.check_batch_size(size, group.data_size, self.images.name, len(self.images))
        self.steps_per_epoch = len(self.images) // size
        self.steps = settings.epochs * self.steps_per_epoch
        self.peak_lr = peak_learning_rate(settings.optimizer.base_lr, settings.optimizer.lr_scaling, size)
        length: dict[str, Any] = {"batch_size": size, "epochs": settings.epochs}
        length["steps_per_epoch"] = self.steps_per_epoch
        self.learning_rate = schedule_of(**settings.optimizer.of_schedule(), **length)
        self.rate_of = {a: schedule_of(**settings.optimizer_of(a).of_schedule(), **length) for a in settings.arms}
        on_gpu = on_device(self.images, group.device)  # once for all streams, and before free memory is measured
        resolved = settings.resolved()
        self.all_arms = arms = build_arms(settings, group, self.images, self.steps)
        self.arms, self.stream_of = arms.own, streams(arms.random_sources, resolved["arms"])
        seeds = {self.stream_of[arm.name]: arms.random_sources[arm.name].of_stream(settings.seed) for arm in self.arms}
        recipe_of = {self.stream_of[arm.name]: settings.augmentation_of(arm.name).plain() for arm in self.arms}
        about = resolved, arms.objectives, arms.random_sources, self.images, group.device.type
        self.warnings = sanity_checks.before_start(*about)
        self.step_batches = partial(
            step_batches,
            dataset=on_gpu,
            seeds=seeds,
            batch_size=size,
            sampler=settings.batch.sampler,
            augmentations=recipe_of,
            size=settings.image_size,
            rank=group.data_rank,
            world_size=group.data_size,
            device=group.device,
            workers=settings.dataset.num_workers,
        )
        names, kept = list(settings.arms), settings.snapshots
        self.lockstep = Lockstep(self.arms, self.stream_of, self.rate_of, settings.log_every, names, group)
        self.kept_epochs = snapshot_epochs(settings.epochs, kept.every_epochs, kept.dense_until_epoch)

    def train(
        self,
        resume: bool = False,
        overwrite: bool = False,
        max_steps: int | None = None,
        accept_images: bool = False,
        after_epoch: Callable[[int], None] | None = None,
    ) -> Outcome:
        """Train up to the last epoch, or until the run is stopped; then save its state.

        SIGTERM, SIGINT or SIGUSR1 to any rank stops the run when losses are next read.

        Args:
            resume: continue the run in the folder, or start it if the folder has none.
            overwrite: delete the run in the folder and start a new one.
            max_steps: stop after this step of the run; the run can be resumed.
            accept_images: continue although the images have changed since the run began.
            after_epoch: called on this rank with each trained epoch that has a snapshot, once the snapshot can be read.

        Raises:
            ValueError: if the run may not start in the folder, or cannot be resumed.
            FloatingPointError: if an arm's loss or gradient is not finite; the message names arm, epoch and step.
            OSError: if a file cannot be written.
        """
        with contextlib.ExitStack() as opened:
            opened.enter_context(memory_errors(self.all_arms.need))
            folder = self._prepare_folder(opened, resume, overwrite, max_steps, accept_images)
            saved, sums = self._resume(max_steps)
            state = self._open_logs(opened, folder, saved, sums, max_steps)
            if saved == NO_CHECKPOINT:
                state.measure(self.arms)
            state.save(self.arms)
            state.progress.begin()
            for epoch in range(state.epochs + 1, self.settings.epochs + 1):
                last = min(epoch * self.steps_per_epoch, max_steps or self.steps)
                for record in self.lockstep.steps(state.step, last, partial(self._batches_after, epoch), state.action):
                    if record.error or record.action == Action.WRITE_FAILED:
                        abort(state, record, epoch, self.arms, self.run, self.group.is_first)
                    state.add(record)
                    if state.ends_epoch:
                        check_no_drift({arm.name: arm.tensors() for arm in self.arms}, epoch)
                        state.end_epoch(self.settings.epochs, self.arms, self.group.owns_arms)
                    if state.ends_epoch or record.action >= Action.SAVE:
                        state.save(self.arms)
                    if after_epoch and state.ends_epoch and state.epochs in self.kept_epochs:
                        state.call_after_epoch(after_epoch)
                    if record.action in (Action.STOP, Action.PREEMPTED) and state.step < self.steps:
                        state.stop(record.action, self.steps)
                        break
                if state.outcome.stopped:
                    break
            if state.writer:
                state.writer.background.finish()
            barrier()
            state.feed.complete = not state.outcome.stopped
            return state.outcome

    def _prepare_folder(
        self, opened: contextlib.ExitStack, resume: bool, overwrite: bool, max_steps: int | None, accept_images: bool
    ) -> PreparedFolder:
        """Check that the run may start or continue in its folder; lock the folder and write run.json."""
        launch, settings = self.group.launch, self.settings
        if launch.restarts and was_started_by(self.run, launch.name, launch.agents):
            resume, overwrite = True, False  # the launcher restarted the ranks after a failure
        folder = (self.run, settings.resolved(), resume, overwrite, settings.may_change())
        check_folder(*folder)
        check_max_steps(max_steps, 0, self.steps)
        if not resume:
            self._space(0, overwrite)
        check_installed(settings.trackers if self.group.is_first else ())
        splits = both_splits(self.train_split, self._load, self.group, settings.dataset.num_workers)
        barrier()  # all ranks have checked the folder before rank 0 writes into it
        prepared = PreparedFolder(splits)
        if self.group.is_first:
            opened.enter_context(run_lock(self.run))
            check_folder(*folder)  # again: another process may have started a run before this one held the lock
            about = description(folder[1], settings.sha256(), splits, self.images, self.group, self.all_arms)
            accepted = check_same_images(self.run, about, splits, accept_images) if resume else []
            prepared = PreparedFolder(splits, about, accepted, prepare_folder(self.run, about, resume))
        barrier()
        return prepared

    def _resume(self, max_steps: int | None) -> tuple[Position, EpochSums]:
        """Load the newest checkpoint, if any, into the arms. Return its position and the sums of its epoch.

        Raises ValueError if the run cannot continue.
        """
        folder, own = self.run / "checkpoints", [arm.name for arm in self.arms]
        done = checkpoints.read_newest(folder, self.settings.sha256(), own)
        saved = Position(done.epoch, done.step) if done else NO_CHECKPOINT
        check_same_folder(self.run, saved.step)
        if saved.step > self.steps:
            raise ValueError(
                f"epochs: got {self.settings.epochs} ({self.steps} steps); {saved.step} are already trained; use more"
            )
        check_max_steps(max_steps, max(saved.step, 0), self.steps)
        sums = {name: list(Sums()) for name in self.settings.arms}
        if done:
            for arm in self.arms:
                arm.load_state(done.arms[arm.name])
            sums |= done.sums
        return saved, sums

    def _open_logs(
        self,
        opened: contextlib.ExitStack,
        folder: PreparedFolder,
        saved: Position,
        sums: EpochSums,
        max_steps: int | None,
    ) -> TrainingState:
        """Open the logs and the progress display; `opened` closes them. Return the state after the `saved` step."""
        settings, first, step = self.settings, self.group.is_first, max(saved.step, 0)
        if first:
            record_images(self.run, folder.description, folder.splits, step if folder.accepted else None)
        progress = opened.enter_context(Progress(list(sums), step, self.steps, first))
        newest = partial(checkpoints.newest_step, self.run / "checkpoints")
        signals = opened.enter_context(StopSignals(progress.say, partial(end_at_once, progress, newest)))
        conditions = StopConditions(signals, Timer(settings.checkpoint.every_minutes if first else None), max_steps)
        left = self._space(step // self.steps_per_epoch, overwrite=False)
        if first:
            about_arms = self.images, self.peak_lr, self.group, self.all_arms, left
            announce(progress, self.run, folder.splits, settings.resolved(), step, *about_arms)
        progress.warn(*self.warnings, *folder.accepted, *folder.changed)
        about = {"run": settings.name, "settings_sha256": settings.sha256(), **colours(self.images)}
        streams = list(dict.fromkeys(self.stream_of.values()))
        columns = list(sums), list(map(digest_column, streams)), StepResult.columns(bool(settings.online_probe))
        own_rates = [name for name, arm in settings.arms.items() if arm.optimizer]
        log, writer = open_files(opened, self.run, self.group, about, *columns, own_rates, self.kept_epochs, saved)
        progress.warn(*(log.warnings if log else ()))
        shown = (settings.trackers if first else ()), self.run, Layout(list(sums), columns[-1], self.steps_per_epoch)
        feed = opened.enter_context(Feed(*shown, step, progress.say, progress.warn))
        monitor, images = None, folder.splits
        if settings.monitor:
            if self.group.owns_arms and not images:
                images = {"train": self.train_split, "test": self._load("test")}
            options = settings.monitor.model_dump() | {"seed": settings.seed, "image_size": settings.image_size}
            options["num_workers"] = settings.dataset.num_workers
            monitor = open_monitor(opened, self.run, saved.epoch, list(sums), images, self.group, options)
        return TrainingState(
            step=step,
            sums=sums,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=settings.batch.size,
            streams=streams,
            learning_rate=self.learning_rate,
            rate_of=self.rate_of,
            progress=progress,
            stop_conditions=conditions,
            log=log,
            writer=writer,
            feed=feed,
            monitor=monitor,
        )

    def _batches_after(self, epoch: int, step: int) -> Iterator[dict[str, Batch]]:
        return self.step_batches(epoch, step - (epoch - 1) * self.steps_per_epoch)

    def _space(self, epoch: int, overwrite: bool) -> str:
        """Return a line on the bytes that the run still needs after `epoch`. Raises ValueError if fewer are free."""
        needed = bytes_needed(self.all_arms, self.kept_epochs, epoch)
        return space(self.run, needed, overwrite, self.settings.snapshots.check_free_space)
