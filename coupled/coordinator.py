"""The coordinator: builds identical arms, proves it, and feeds each the same batches; snapshots and resume.

A rank trains the arms of its place; rank 0 keeps the logs of all. Every method with a leading underscore that gathers
is called by all ranks together.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from coupled import resume_state, watch
from coupled.agreement import check_equal_start, of_all_arms
from coupled.arm import Arm, StepResult
from coupled.choices import filled_in, find_objective, load_image_set
from coupled.encoders import check_bfloat16_on_cpu
from coupled.image_sets import SPLITS, ImageSet
from coupled.keeping import Keeper, space
from coupled.loop import Loop
from coupled.network import build_network, copy_with_heads, network_size, shared_tensors
from coupled.optimizer import learning_rate, peak_learning_rate
from coupled.placement import place_arms
from coupled.process_group import ProcessGroup, barrier, job
from coupled.progress import Progress
from coupled.resume_state import ResumeState
from coupled.run_lock import run_lock
from coupled.run_log import RunLog, check_folder, describe_code, is_run_of, prepare_folder
from coupled.settings import Settings, from_resolved
from coupled.snapshots import snapshot_epochs
from coupled.stopping import Every, StopSignals, Wishes, check_until_step
from coupled.stream.batches import Batch, batches
from coupled.stream.order import order
from coupled.stream.view_plan import ViewRecipe, view_plan


class Coordinator:
    """Trains the arms of `settings` in lockstep, in the process group `group`, into the folder `run`."""

    def __init__(self, settings: Settings, group: ProcessGroup, run: Path) -> None:
        self.settings = settings = from_resolved(filled_in(settings.resolved()))
        self.group, self.run = group, run
        self.objectives = {
            name: find_objective(name, arm.objective, arm.options, settings.temperature)
            for name, arm in settings.arms.items()
        }
        if not group.is_first:
            barrier()  # rank 0 loads first: it may have to download or to fill a cache
        self.images = self._load("train")
        if group.is_first:
            barrier()
        size = settings.batch.size
        watch.check_batch_size(size, group.data_size, self.images.name, len(self.images))
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
        shared = build_network(
            encoder=settings.encoder.name,
            width=settings.encoder.width,
            stem=settings.encoder.stem,
            image_size=settings.encoder.image_size,
            projector_hidden=settings.projector.hidden,
            projector_out=settings.projector.out,
            seed=settings.seed,
        )
        if settings.precision == "bfloat16" and group.device.type == "cpu":
            check_bfloat16_on_cpu(shared.encoder, settings.encoder.image_size)
        classes = len(self.images.class_names)
        self.sizes = {
            name: network_size(copy_with_heads(shared, objective.needs, classes, settings.seed))
            for name, objective in self.objectives.items()
        }
        self.placed = place_arms({name: parameters for name, (parameters, _) in self.sizes.items()}, group.arms_size)
        self.arms = [
            Arm(name, settings, self.objectives[name], shared, classes, group.device)
            for name in self.placed[group.arms_rank]
        ]
        check_equal_start({arm.name: shared_tensors(arm.network) for arm in self.arms})
        self.kept_epochs = snapshot_epochs(settings.epochs, settings.snapshots.every, settings.snapshots.dense_until)

    def train(self, resume: bool = False, overwrite: bool = False, until_step: int | None = None) -> str:
        """Train to the last epoch; "" if it was reached, otherwise what stopped the run before it, its state saved.

        SIGTERM, SIGINT or SIGUSR1 to any rank stops the run after the running step, `until_step` after that step.
        Raises ValueError if a run is in the way or cannot be resumed, FloatingPointError if an arm's loss or gradient
        is not finite (it names arm, epoch and step), OSError if something cannot be written.
        """
        settings, first = self.settings, self.group.is_first
        if job().restarts and is_run_of(self.run, job().name):
            resume, overwrite = True, False  # the launcher started the ranks again after a failure
        folder = (self.run, settings.resolved(), resume, overwrite, settings.may_change())
        check_folder(*folder)
        check_until_step(until_step, 0, self.steps)
        if not resume:
            self._space(0)
        barrier()  # before rank 0 writes into the folder
        with contextlib.ExitStack() as opened:
            if first:
                about = self._description()
                opened.enter_context(run_lock(self.run))
                check_folder(*folder)  # again: another process may have begun before this one held the lock
                changed = prepare_folder(self.run, about, resume)
            barrier()
            done = resume_state.read_newest(self.run / "resume")
            step = self._continue_from(done, until_step)
            clock = Every(settings.resume.every_minutes if first else None)
            wishes = Wishes(opened.enter_context(StopSignals()), clock, until_step)
            progress = opened.enter_context(Progress(list(settings.arms), step, self.steps, first))
            self._announce(progress, step)
            log = None
            if first:
                progress.warn(*changed)
                log = RunLog(self.run, list(settings.arms), StepResult._fields, done.epoch if done else 0, step)
            header = {"run": settings.name, "settings_sha256": settings.sha256()}
            together = None
            if self.group.arms_size > 1:
                together = partial(of_all_arms, owns=self.group.owns_arms, arms=list(settings.arms))
            keeper = Keeper(self.run, log, done, self.kept_epochs, header, together)
            opened.callback(keeper.close)
            barrier()  # what a killed process left is gone before anyone writes
            loop = Loop(
                run=self.run,
                group=self.group,
                names=list(settings.arms),
                arms=self.arms,
                batches=self._batches,
                learning_rate=self.learning_rate,
                batch_size=settings.batch.size,
                steps_per_epoch=self.steps_per_epoch,
                epochs=settings.epochs,
                keeper=keeper,
                log=log,
                wishes=wishes,
                progress=progress,
                sums=done.sums if done else {},
            )
            self.stopped = loop.train_from(step)
        return self.stopped

    def _continue_from(self, done: ResumeState | None, until_step: int | None) -> int:
        """Give the arms the state `done`; the steps done. Raises ValueError if the run cannot go on from there."""
        step = done.step if done else 0
        if done and step > self.steps:
            raise ValueError(f"epochs: got {self.settings.epochs}; the run has done {done.epoch} already")
        check_until_step(until_step, step, self.steps)
        for arm in self.arms if done else ():
            arm.load_state(done.arms[arm.name])  # type: ignore[union-attr]
        return step

    def _batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        settings, images = self.settings, self.images
        views = settings.views.model_dump(exclude={"recipe"})
        return batches(
            images,
            order(settings.seed, epoch, images.labels_N.numpy(), settings.batch.size, settings.batch.order),
            view_plan(settings.seed, epoch, len(images), ViewRecipe(**views)),
            epoch=epoch,
            size=settings.encoder.image_size,
            rank=self.group.data_rank,
            world_size=self.group.data_size,
            device=self.group.device,
            start=start,
            workers=settings.batch.workers,
        )

    def _load(self, split: str) -> ImageSet:
        return load_image_set(self.settings.image_set.name, self.settings.image_set.options, split)

    def _description(self) -> dict[str, Any]:
        digests = {f"{split}_digest": self._load(split).digest() for split in SPLITS}
        return {
            "format": "coupled.run.1",
            "name": self.settings.name,
            "seed": self.settings.seed,
            "settings": self.settings.resolved(),
            "settings_sha256": self.settings.sha256(),
            "image_set": {"name": self.images.name, **digests},
            "world_size": self.group.world_size,
            "placement": self.placed,
            "threads": torch.get_num_threads(),
            "job": job().name,
            "device": str(self.group.device.type),
            "precision": self.settings.precision,
            **describe_code(),
        }

    def _announce(self, progress: Progress, step: int) -> None:
        """Say once what is about to run."""
        size, sharing = self.settings.batch.size, self.group.data_size
        progress.say(
            f"run {self.run}: {self.images.name}, {len(self.images)} images, {self.settings.epochs} epochs of"
            f" {self.steps_per_epoch} steps" + (f", continuing after step {step}" if step else "")
        )
        progress.say(
            f"global batch {size} = {sharing} x {size // sharing} images, {2 * size - 2} other images' views as"
            f" negatives of an anchor without labels; peak learning rate {self.peak_lr:.6g}"
        )
        for place, names in enumerate(self.placed):
            where = f" (place {place} of {self.group.arms_size})" if self.group.arms_size > 1 else ""
            for name in names:
                progress.say(f"arm {name}{where}: {self.objectives[name]}, {self.sizes[name][0]:,} parameters")
        progress.say(self._space(step // self.steps_per_epoch))
        labels_N, names = self.images.labels_N, self.images.class_names
        progress.warn(*watch.unbalanced_classes(labels_N, names, size, self.settings.batch.order))

    def _space(self, epoch: int) -> str:
        """A line on the bytes that the run still needs after `epoch`. Raises ValueError if they are not there."""
        one = sum(size for _, size in self.sizes.values())
        snapshots = sum(e > epoch or e == epoch == 0 for e in self.kept_epochs)
        return space(self.run, one, snapshots, self.settings.snapshots.check_free_space)
