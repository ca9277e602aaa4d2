"""The coordinator: builds identical arms, proves it, and feeds each the same batches; snapshots and resume.

W world size.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from coupled import resume_state, watch
from coupled.arm import Arm, StepResult, find_objective
from coupled.image_sets import SPLITS
from coupled.keeping import Keeper, space, write_replay
from coupled.load_images import load_images
from coupled.lockstep import Attempt, Sums, attempt, check_equal_start
from coupled.network import build_network, parameter_count
from coupled.optimizer import learning_rate, peak_learning_rate
from coupled.process_group import ProcessGroup, barrier, highest_over_ranks
from coupled.progress import Progress
from coupled.resume_state import ResumeState
from coupled.run_lock import run_lock
from coupled.run_log import check_folder, describe_code, prepare_folder
from coupled.settings import Settings
from coupled.snapshots import snapshot_epochs
from coupled.stopping import FAILED, SAVE, STOP, Every, StopSignals, Wishes, check_until_step
from coupled.stream.batches import Batch, batches
from coupled.stream.order import order
from coupled.stream.view_plan import ViewRecipe, view_plan


class Coordinator:
    """Trains the arms of `settings` in lockstep, in the process group `group`, into the folder `run`."""

    def __init__(self, settings: Settings, group: ProcessGroup, run: Path) -> None:
        self.settings, self.group, self.run = settings, group, run
        objectives = {name: find_objective(name, arm, settings.temperature) for name, arm in settings.arms.items()}
        if not group.is_first:
            barrier()  # rank 0 loads first: it may have to download or to fill a cache
        self.images = load_images(settings.image_set.name, settings.image_set.options, "train")
        if group.is_first:
            barrier()
        size = settings.batch.size
        watch.check_batch_size(size, group.world_size, self.images.name, len(self.images))
        self.steps_per_epoch = len(self.images) // size
        self.peak_lr = peak_learning_rate(settings.optimizer.base_lr, settings.optimizer.lr_scaling, size)
        self.learning_rate = partial(
            learning_rate,
            peak=self.peak_lr,
            steps_per_epoch=self.steps_per_epoch,
            epochs=settings.epochs,
            warmup_epochs=settings.optimizer.warmup_epochs,
            schedule=settings.optimizer.schedule,
        )
        shared = build_network(
            encoder=settings.encoder.name,
            width=settings.encoder.width,
            stem=settings.encoder.stem,
            image_size=settings.encoder.image_size,
            projector_hidden=settings.projector.hidden,
            projector_out=settings.projector.out,
            seed=settings.seed,
        )
        given = (shared, len(self.images.class_names), group.device)
        self.arms = [Arm(name, settings, objective, *given) for name, objective in objectives.items()]
        check_equal_start(self.arms)
        self.steps = settings.epochs * self.steps_per_epoch
        self.kept_epochs = snapshot_epochs(settings.epochs, settings.snapshots.every, settings.snapshots.dense_until)

    def train(self, resume: bool = False, overwrite: bool = False, until_step: int | None = None) -> str:
        """Train to the last epoch; "" if it was reached, otherwise what stopped the run before it, its state saved.

        SIGTERM, SIGINT or SIGUSR1 to any rank stops the run after the running step, `until_step` after that step.
        Raises ValueError if a run is in the way or cannot be resumed, FloatingPointError if an arm's loss or gradient
        is not finite (it names arm, epoch and step), OSError if something cannot be written.
        """
        settings, first = self.settings, self.group.is_first
        folder = (self.run, settings.resolved(), resume, overwrite, settings.may_change())
        check_folder(*folder)
        check_until_step(until_step, 0, self.steps)
        barrier()  # before rank 0 writes into it
        with contextlib.ExitStack() as opened:
            if first:
                about = self._description()
                if not resume:
                    self._space(0, overwrite)
                opened.enter_context(run_lock(self.run))
                check_folder(*folder)  # again: another process may have begun before this one held the lock
                changed = prepare_folder(self.run, about, resume)
            barrier()
            done = resume_state.read_newest(self.run / "resume")
            step = self._continue_from(done, until_step)
            clock = Every(settings.resume.every_minutes if first else None)
            self.wishes = Wishes(opened.enter_context(StopSignals()), clock, until_step)
            progress = opened.enter_context(Progress(list(self.sums), step, self.steps, first))
            self._announce(progress, step)
            if first:
                header = {"run": settings.name, "settings_sha256": settings.sha256()}
                self.keeper = Keeper(self.run, list(self.sums), StepResult._fields, done, self.kept_epochs, header)
                opened.callback(self.keeper.close)
                progress.warn(*changed)
            self._keep(step)
            self.stopped = ""
            while step < self.steps and not self.stopped:
                step = self._epoch(step, progress)
            if first:
                self.keeper.behind.finish()
            barrier()
        return self.stopped

    def _continue_from(self, done: ResumeState | None, until_step: int | None) -> int:
        """Give the arms the state `done`; the steps done. Raises ValueError if the run cannot go on from there."""
        step = done.step if done else 0
        if step > self.steps:
            raise ValueError(
                f"epochs: got {self.settings.epochs}; the run has done {done.epoch if done else 0} already"
            )
        check_until_step(until_step, step, self.steps)
        self.sums = {arm.name: list(Sums()) for arm in self.arms}
        if done:
            for arm in self.arms:
                arm.load_state(done.arms[arm.name])
            self.sums |= done.sums
        return step

    def _epoch(self, step: int, progress: Progress) -> int:
        """Train from `step` steps done to the end of the epoch or to where the run is stopped; the steps done."""
        epoch, start = step // self.steps_per_epoch + 1, step % self.steps_per_epoch
        if start == 0:
            self.sums = {arm.name: list(Sums()) for arm in self.arms}
        for batch in self._batches(epoch, start):
            step += 1
            results, word = self._step(batch, step)
            images = (batch.number + 1) * self.settings.batch.size
            shown = {name: (r.loss, r.grad_norm, images / self.sums[name][1]) for name, r in results.items()}
            progress.step(epoch, step, shown)
            if self.group.is_first:
                values = [value for result in results.values() for value in result]
                self.keeper.log.steps.row([epoch, step, batch.inputs_digest, self.learning_rate(step), *values])
            if step % self.steps_per_epoch == 0:
                self._end_epoch(epoch, step, progress)
            if word >= SAVE or step % self.steps_per_epoch == 0:
                self._keep(step)
            if word == STOP and step < self.steps:
                self.stopped = f"stopped by {self.wishes.why(step)} after step {step} of {self.steps}"
                break
        return step

    def _step(self, batch: Batch, step: int) -> tuple[dict[str, StepResult], int]:
        """All arms' step, and what is to be done after it: the highest wish of all ranks."""
        made = attempt(self.arms, batch)
        failed = made.error or (self.group.is_first and self.keeper.behind.failed())
        word = highest_over_ranks(FAILED if failed else self.wishes.after(step))
        if word == FAILED:
            self._give_up(batch, step, made)
        made.take(self.learning_rate(step))
        self.sums = made.added_to(self.sums, self.steps_per_epoch)
        return made.results, word

    def _give_up(self, batch: Batch, step: int, made: Attempt) -> NoReturn:
        """Save the state before the step and what the step saw, and raise its error with where it happened."""
        made.undo()
        seen = ""
        if self.group.is_first:
            self.keeper.behind.finish()  # if it was the writing that failed, this raises its reason
            self._keep(step - 1)
            self.keeper.behind.finish()
            path = write_replay(self.run, batch, step, self.learning_rate(step), made)
            seen = f" and its state is saved; {path} says what it saw; --resume --until-step {step} comes here again"
        if made.error is None:
            raise OSError(f"step {step}: stopped because another rank failed, which says why")
        where = f"in epoch {batch.epoch}, step {step}: the run stops before this step"
        kind = FloatingPointError if isinstance(made.error, FloatingPointError) else ValueError
        raise kind(f"{made.error} {where}{seen}")

    def _end_epoch(self, epoch: int, step: int, progress: Progress) -> None:
        sums = {name: Sums(*values) for name, values in self.sums.items()}
        images = self.steps_per_epoch * self.settings.batch.size
        if self.group.is_first:
            for name, (loss, seconds, _) in sums.items():
                self.keeper.log.epochs.row([epoch, name, loss, self.learning_rate(step), seconds, images / seconds])
            for arm in self.arms:
                left_out = watch.left_out_anchors(arm.name, int(sums[arm.name].left_out), 2 * images)
                progress.warn(*left_out, *watch.collapse(arm.name, arm.projection_spread()))
        progress.epoch(epoch, self.settings.epochs, step, {name: loss for name, (loss, _, _) in sums.items()})

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        settings, images = self.settings, self.images
        views = settings.views.model_dump(exclude={"recipe"})
        return batches(
            images,
            order(settings.seed, epoch, images.labels_N.numpy(), settings.batch.size, settings.batch.order),
            view_plan(settings.seed, epoch, len(images), ViewRecipe(**views)),
            epoch=epoch,
            size=settings.encoder.image_size,
            rank=self.group.rank,
            world_size=self.group.world_size,
            device=self.group.device,
            start=start,
            workers=settings.batch.workers,
        )

    def _keep(self, step: int) -> None:
        if self.group.is_first:
            arms = {arm.name: arm.state() for arm in self.arms}
            state = ResumeState(step, step // self.steps_per_epoch, arms, self.sums)
            self.keeper.keep(state, ends_epoch=step % self.steps_per_epoch == 0)
        self.wishes.clock.restart()

    def _description(self) -> dict[str, Any]:
        chosen = self.settings.image_set
        digests = {f"{split}_digest": load_images(chosen.name, chosen.options, split).digest() for split in SPLITS}
        return {
            "format": "coupled.run.1",
            "name": self.settings.name,
            "seed": self.settings.seed,
            "settings": self.settings.resolved(),
            "settings_sha256": self.settings.sha256(),
            "image_set": {"name": self.images.name, **digests},
            "world_size": self.group.world_size,
            "device": str(self.group.device.type),
            "precision": self.settings.precision,
            **describe_code(),
        }

    def _announce(self, progress: Progress, step: int) -> None:
        """Say once what is about to run. Raises ValueError if its snapshots do not fit on the disk."""
        size, world_size = self.settings.batch.size, self.group.world_size
        progress.say(
            f"run {self.run}: {self.images.name}, {len(self.images)} images, {self.settings.epochs} epochs of"
            f" {self.steps_per_epoch} steps" + (f", continuing after step {step}" if step else "")
        )
        progress.say(
            f"global batch {size} = {world_size} x {size // world_size} images, {2 * size - 2} other images' views as"
            f" negatives of an anchor (cl); peak learning rate {self.peak_lr:.6g}"
        )
        for arm in self.arms:
            progress.say(f"arm {arm.name}: {arm.describe()}, {parameter_count(arm.network):,} parameters")
        if self.group.is_first:
            progress.say(self._space(step // self.steps_per_epoch, overwrite=False))
        labels_N, names = self.images.labels_N, self.images.class_names
        progress.warn(*watch.unbalanced_classes(labels_N, names, size, self.settings.batch.order))

    def _space(self, epoch: int, overwrite: bool) -> str:
        """A line on the bytes that the run still needs after `epoch`. Raises ValueError if they are not there."""
        one = sum(4 * t.numel() for arm in self.arms for t in arm.network.state_dict().values())
        snapshots = sum(e > epoch or e == epoch == 0 for e in self.kept_epochs)
        return space(self.run, one, snapshots, overwrite, self.settings.snapshots.check_free_space)
