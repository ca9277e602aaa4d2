"""The coordinator: builds identical arms, proves it, and feeds each the same batches; snapshots and resume.

A rank trains the arms of its place; rank 0 keeps the logs of all. All ranks together call every method that gathers.
"""

import contextlib
from functools import partial
from pathlib import Path
from typing import NoReturn

from coupled.arms import sanity_checks
from coupled.arms.arm import StepResult
from coupled.arms.build import build_arms
from coupled.arms.consistency import check_no_drift, check_same_folder
from coupled.arms.feeds import digest_column, feeds
from coupled.arms.lockstep import Attempt, Lockstep, Sums
from coupled.arms.summary import announce, bytes_needed, description
from coupled.config.controls import streams
from coupled.config.registry import filled_in, load_image_set
from coupled.config.schema import Settings, from_resolved
from coupled.models.optimizer import learning_rate, peak_learning_rate
from coupled.monitoring.progress import Progress
from coupled.monitoring.signals import (
    BROKEN,
    PREEMPTED,
    SAVE,
    STOP,
    Every,
    StopSignals,
    Wishes,
    check_until_step,
    stop_now,
)
from coupled.parallel.failure_broadcast import RunError
from coupled.parallel.process_group import ProcessGroup, barrier, gather_json
from coupled.storage import checkpoints
from coupled.storage.checkpoint_writer import NOTHING_SAVED, Keeper, Saved, open_log, replay_path, write_replay
from coupled.storage.checkpoints import ResumeState
from coupled.storage.dataset_record import check_same_images, record_images
from coupled.storage.image_check import both_splits
from coupled.storage.run_lock import run_lock
from coupled.storage.run_log import check_folder, is_run_of, prepare_folder, space
from coupled.storage.snapshots import snapshot_epochs
from coupled.stream.batches import on_device
from coupled.stream.view_plan import ViewRecipe


class Coordinator:
    """Trains the arms of `settings` in lockstep, in the process group `group`, into the folder `run`."""

    def __init__(self, settings: Settings, group: ProcessGroup, run: Path) -> None:
        self.settings = settings = from_resolved(filled_in(settings.resolved()))
        self.group, self.run = group, run
        if not group.is_first:
            barrier()  # rank 0 loads first: it may have to download or to fill a cache
        self._load = partial(load_image_set, settings.image_set.name, settings.image_set.options, seed=settings.seed)
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
            kind=settings.batch.order,
            recipe=ViewRecipe(**settings.views.model_dump(exclude={"recipe"})),
            size=settings.encoder.image_size,
            rank=group.data_rank,
            world_size=group.data_size,
            device=group.device,
            workers=settings.batch.workers,
        )
        about = (settings.read_every, list(settings.arms), group)
        self.lockstep = Lockstep(self.arms, self.stream_of, self.learning_rate, *about)
        self.kept_epochs = snapshot_epochs(settings.epochs, settings.snapshots.every, settings.snapshots.dense_until)

    def train(
        self, resume: bool = False, overwrite: bool = False, until_step: int | None = None, accept_images: bool = False
    ) -> tuple[str, bool]:
        """Train to the last epoch; "" if it was reached, otherwise what stopped the run before it, its state saved; and
        whether that was the signal of a scheduler, SIGTERM or SIGUSR1.

        SIGTERM, SIGINT or SIGUSR1 to any rank stops the run when losses are next read, `until_step` after that step.
        Raises ValueError if a run is in the way or cannot be resumed, FloatingPointError if an arm's loss or gradient
        is not finite (it names arm, epoch and step), OSError if something cannot be written.
        """
        launch = self.group.launch
        if launch.restarts and is_run_of(self.run, launch.name, launch.agents):
            resume, overwrite = True, False  # the launcher started the ranks again after a failure
        settings, first = self.settings, self.group.is_first
        folder = (self.run, settings.resolved(), resume, overwrite, settings.may_change())
        check_folder(*folder)
        check_until_step(until_step, 0, self.steps)
        if not resume:
            self._space(0, overwrite)
        both = both_splits(self.images, self._load, self.group, settings.batch.workers)
        barrier()  # before rank 0 writes into it
        with contextlib.ExitStack() as opened:
            changed, accepted = list[str](), list[str]()
            if first:
                opened.enter_context(run_lock(self.run))
                check_folder(*folder)  # again: another process may have begun before this one held the lock
                about = description(folder[1], settings.sha256(), both, self.group, self.all_arms.placed)
                accepted = check_same_images(self.run, about, both, accept_images) if resume else []
                changed = prepare_folder(self.run, about, resume)
            barrier()
            saved = self._continue(until_step)
            step = max(saved.step, 0)
            if first:
                record_images(self.run, about, both, step if accepted else None)
            newest = partial(checkpoints.newest_step, self.run / "resume")
            clock = Every(settings.resume.every_minutes if first else None)
            progress = opened.enter_context(Progress(list(self.sums), step, self.steps, first))
            signals = opened.enter_context(StopSignals(progress.say, partial(stop_now, progress, newest)))
            self.wishes = Wishes(signals, clock, until_step)
            left = self._space(step // self.steps_per_epoch, overwrite=False)
            if first:
                announce(progress, self.run, both, folder[1], step, self.peak_lr, self.group, self.all_arms, left)
            progress.warn(*self.warnings, *accepted, *changed)
            both.clear()  # nothing needs the test images any more
            self._open(saved, opened)
            progress.warn(*(self.log.warnings if self.log else ()))
            self._keep(step)
            self.stopped, self.preempted = "", False
            progress.begin()
            while step < self.steps and not self.stopped:
                step = self._epoch(step, progress)
            if self.keeper:
                self.keeper.behind.finish()
            barrier()
        return self.stopped, self.preempted

    def _continue(self, until_step: int | None) -> Saved:
        """Give the arms the newest resume state, if any; where it was saved. Raises ValueError if it cannot go on."""
        own = [arm.name for arm in self.arms]
        done = checkpoints.read_newest(self.run / "resume", self.settings.sha256(), own)
        saved = Saved(done.epoch, done.step) if done else NOTHING_SAVED
        check_same_folder(self.run, saved.step)
        if saved.step > self.steps:
            raise ValueError(f"epochs: got {self.settings.epochs}; the run has done {saved.epoch} already")
        check_until_step(until_step, max(saved.step, 0), self.steps)
        self.sums = {name: list(Sums()) for name in self.settings.arms}
        if done:
            for arm in self.arms:
                arm.load_state(done.arms[arm.name])
            self.sums |= done.sums
        return saved

    def _open(self, saved: Saved, opened: contextlib.ExitStack) -> None:
        """Open what is written: the log on rank 0, which clears away what a crash left, and a keeper on every owner."""
        names, sha256 = list(self.settings.arms), self.settings.sha256()
        digests = list(map(digest_column, dict.fromkeys(self.stream_of.values())))
        self.log = None
        if self.group.is_first:
            self.log = open_log(self.run, sha256, digests, names, StepResult._fields, self.kept_epochs, saved)
            opened.callback(self.log.close)
        barrier()
        self.keeper: Keeper | None = None
        if self.group.owns_arms:
            header = {"run": self.settings.name, "settings_sha256": sha256}
            self.keeper = Keeper(self.run, names, self.log, saved, self.kept_epochs, header)
            opened.callback(self.keeper.close)

    def _epoch(self, step: int, progress: Progress) -> int:
        """Train from `step` steps done to the end of the epoch or to where the run is stopped; the steps done."""
        epoch, start = step // self.steps_per_epoch + 1, step % self.steps_per_epoch
        if start == 0:
            self.sums = {name: list(Sums()) for name in self.settings.arms}
        before, last = step - start, min(epoch * self.steps_per_epoch, self.wishes.until_step or self.steps)
        for made in self.lockstep.steps(step, last, lambda done: self.feeds(epoch, done - before), self._wish):
            step = made.step
            if made.error or made.wish == BROKEN:
                self._give_up(made, epoch)
            if made.doubt:
                progress.warn(f"{made.doubt}; taken again, all was well: has the machine a fault?")
            self.sums = made.added_to(self.sums, self.steps_per_epoch)
            images = (step - before) * self.settings.batch.size
            shown = {a: (r.loss, r.grad_norm, images / self.sums[a][1]) for a, r in made.results.items()}
            progress.step(epoch, step, shown)
            if self.log:
                values = [value for result in made.results.values() for value in result]
                digests = [made.digests[name] for name in dict.fromkeys(self.stream_of.values())]
                self.log.steps.row([epoch, step, *digests, self.learning_rate(step), *values])
            if step % self.steps_per_epoch == 0:
                self._end_epoch(epoch, step, progress)
            if made.wish >= SAVE or step % self.steps_per_epoch == 0:
                self._keep(step)
            if made.wish in (STOP, PREEMPTED) and step < self.steps:
                self.preempted = made.wish == PREEMPTED
                self.stopped = f"stopped by {self.wishes.why(step)} after step {step} of {self.steps}"
                break
        return step

    def _wish(self, step: int) -> int:
        return BROKEN if self.keeper and self.keeper.behind.failed() else self.wishes.after(step)

    def _give_up(self, made: Attempt, epoch: int) -> NoReturn:
        """Save the state before the step and what the step saw, and raise its error with where it happened."""
        step = made.step
        for arm in self.arms:
            arm.undo()
        if self.keeper:
            self.keeper.behind.finish()  # if it was the writing that failed, this raises its reason
        if made.wish == BROKEN:
            barrier()  # where the writing failed the reason is told meanwhile, and this rank is ended
        if made.error is None:
            raise RunError(f"step {step}: stopped because another rank could not write")
        self._keep(step - 1)
        if self.keeper:
            self.keeper.behind.finish()
        kind, text = made.error
        results = {name: result._asdict() for name, result in made.results.items()}
        if self.group.is_first:
            seen = {digest_column(name): batch for name, batch in made.inputs.items()}
            write_replay(self.run, epoch, step, seen, self.learning_rate(step), text, results)
        barrier()  # all is saved before the first rank tells and ends the others
        where = f"in epoch {epoch}, step {step}: the run stops before this step and its state is saved;"
        then = f"{replay_path(self.run, step)} says what it saw; --resume --until-step {step} comes here again"
        raise {"ValueError": ValueError}.get(kind, FloatingPointError)(f"{text} {where} {then}")

    def _end_epoch(self, epoch: int, step: int, progress: Progress) -> None:
        check_no_drift({arm.name: arm.network.state_dict() for arm in self.arms}, f"after epoch {epoch}")
        sums = {name: Sums(*values) for name, values in self.sums.items()}
        images = self.steps_per_epoch * self.settings.batch.size
        own = {arm.name: arm.projection_spread() for arm in self.arms if self.group.owns_arms}
        spread_of = {name: spread for of_rank in gather_json(own) for name, spread in of_rank.items()}
        for name, (loss, seconds, left_out) in sums.items():
            if self.log:
                self.log.epochs.row([epoch, name, loss, self.learning_rate(step), seconds, images / seconds])
            progress.warn(*sanity_checks.left_out_anchors(name, int(left_out), 2 * images))
            progress.warn(*sanity_checks.collapse(name, spread_of[name]))
        progress.epoch(epoch, self.settings.epochs, step, {name: loss for name, (loss, _, _) in sums.items()})

    def _keep(self, step: int) -> None:
        if self.keeper:
            states = {arm.name: arm.state() for arm in self.arms}
            state = ResumeState(step, step // self.steps_per_epoch, states, self.sums)
            self.keeper.keep(state, ends_epoch=step % self.steps_per_epoch == 0)
        self.wishes.clock.restart()

    def _space(self, epoch: int, overwrite: bool) -> str:
        """A line on the bytes that the run still needs after `epoch`. Raises ValueError if they are not there."""
        needed = bytes_needed(self.all_arms, self.kept_epochs, epoch)
        return space(self.run, needed, overwrite, self.settings.snapshots.check_free_space)
