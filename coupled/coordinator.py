"""The coordinator: builds identical arms, proves it, and feeds each the same batches; snapshots and resume.

A rank trains the arms of its place; rank 0 keeps the logs of all. Every method with a leading underscore that gathers
is called by all ranks together.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from coupled import resume_state
from coupled.agreement import check_equal_start, check_no_drift
from coupled.arm import Arm, StepResult
from coupled.choices import filled_in, find_objective, load_image_set
from coupled.encoders import check_bfloat16_on_cpu
from coupled.image_sets import AnyImageSet
from coupled.network import build_network, copy_with_heads, network_size, shared_tensors
from coupled.optimizer import learning_rate, peak_learning_rate
from coupled.placement import place_arms
from coupled.process_group import ProcessGroup, barrier, gather_json, job
from coupled.progress import Progress
from coupled.run_log import RunLog, check_folder, describe_code, is_run_of, prepare_folder, snapshot_space
from coupled.settings import Settings, from_resolved
from coupled.snapshots import Entry, SnapshotStore, snapshot_epochs
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
        size, sharing = settings.batch.size, group.data_size
        if size % sharing:
            near = " or ".join(str(b) for b in (size - size % sharing, size - size % sharing + sharing) if b)
            raise ValueError(
                f"batch.size: got {size} for {sharing} processes that share it; it must be divisible by them: {near}"
            )
        self.steps_per_epoch = len(self.images) // size
        if self.steps_per_epoch == 0:
            raise ValueError(f"batch.size: got {size}; image set '{self.images.name}' has {len(self.images)} images")
        self.peak_lr = peak_learning_rate(settings.optimizer.base_lr, settings.optimizer.lr_scaling, size)
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
        self.snapshots = SnapshotStore(run / "snapshots")
        self.kept_epochs = snapshot_epochs(settings.epochs, settings.snapshots.every, settings.snapshots.dense_until)

    def train(self, resume: bool = False, overwrite: bool = False) -> None:
        """Train to the last epoch.

        Raises ValueError if a run is in the way or cannot be resumed, FloatingPointError if an arm's loss or gradient
        is not finite (it names arm, epoch and step).
        """
        if job().restarts and is_run_of(self.run, job().name):
            resume, overwrite = True, False  # the launcher started the ranks again after a failure
        check_folder(self.run, self.settings.resolved(), resume, overwrite)
        done = resume_state.read_newest(self.run / "resume") if resume else None
        epoch, step = (done.epoch, done.step) if done else (0, 0)
        needed = sum(b for _, b in self.sizes.values()) * sum(e > epoch or e == epoch == 0 for e in self.kept_epochs)
        space = snapshot_space(needed, self.run)
        barrier()
        if self.group.is_first:
            prepare_folder(self.run, self._description(), resume)
        barrier()
        if done:
            for arm in self.arms:
                arm.load_state(done.arms[arm.name])
        names = list(self.settings.arms)
        with contextlib.ExitStack() as opened:
            progress = Progress(names, step, self.settings.epochs * self.steps_per_epoch, self.group.is_first)
            opened.enter_context(progress)
            self._announce(progress, epoch, space)
            if self.group.is_first:
                self.log = RunLog(self.run, names, StepResult._fields, epoch, step)
                opened.callback(self.log.close)
                self.snapshots.cut(epoch if done else -1)
            if not done:
                self._keep(0, 0)
            while epoch < self.settings.epochs:
                epoch += 1
                step = self._epoch(epoch, step, progress)
        barrier()

    def _epoch(self, epoch: int, step: int, progress: Progress) -> int:
        seconds = dict.fromkeys(self.settings.arms, 0.0)
        losses = dict.fromkeys(self.settings.arms, 0.0)
        for batch in self._batches(epoch):
            step += 1
            lr = self._learning_rate(step)
            own: dict[str, tuple[StepResult, float]] = {}
            for arm in self.arms:
                began = time.monotonic()
                try:
                    result = arm.step(batch, lr)
                except (FloatingPointError, ValueError) as error:
                    raise type(error)(f"{error} in epoch {epoch}, step {step}: the run stops") from None
                own[arm.name] = (result, time.monotonic() - began)
            results: dict[str, StepResult] = {}
            for name, (values, taken) in self._of_all_arms(own).items():
                results[name] = StepResult(*values)
                seconds[name] += taken
                losses[name] += results[name].loss / self.steps_per_epoch
            images = (batch.number + 1) * self.settings.batch.size
            progress.step(epoch, step, {a: (r.loss, r.grad_norm, images / seconds[a]) for a, r in results.items()})
            if self.group.is_first:
                values = [value for result in results.values() for value in result]
                self.log.steps.row([epoch, step, batch.inputs_digest, lr, *values])
        check_no_drift({arm.name: arm.network.state_dict() for arm in self.arms}, f"after epoch {epoch}")
        if self.group.is_first:
            for name, loss in losses.items():
                rate = self.steps_per_epoch * self.settings.batch.size / seconds[name]
                self.log.epochs.row([epoch, name, loss, self._learning_rate(step), seconds[name], rate])
        self._keep(epoch, step)
        progress.epoch(epoch, self.settings.epochs, step, losses)
        return step

    def _of_all_arms(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """JSON values by arm, of the arms of all places in the order of the settings; each says its own."""
        if self.group.arms_size == 1:
            return dict(own)
        of_ranks = gather_json(own if self.group.owns_arms else {})
        together = {name: value for values in of_ranks for name, value in values.items()}
        return {name: together[name] for name in self.settings.arms}

    def _batches(self, epoch: int) -> Iterator[Batch]:
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
            workers=settings.batch.workers,
        )

    def _learning_rate(self, step: int) -> float:
        return learning_rate(
            step,
            peak=self.peak_lr,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.settings.epochs,
            warmup_epochs=self.settings.optimizer.warmup_epochs,
            schedule=self.settings.optimizer.schedule,
        )

    def _keep(self, epoch: int, step: int) -> None:
        """Rows and snapshots first, then the resume state: what it counts as done is on the disk.

        The owner of an arm writes its files; rank 0 adds them to the manifest and makes the resume state valid.
        """
        mine = self.arms if self.group.owns_arms else []
        if self.group.is_first:
            self.log.sync()
            resume_state.begin(self.run / "resume")
        barrier()
        if epoch in self.kept_epochs:
            about = {"run": self.settings.name, "settings_sha256": self.settings.sha256()}
            written = {
                arm.name: asdict(
                    self.snapshots.write_file(arm.name, epoch, arm.network.state_dict(), step=step, metadata=about)
                )
                for arm in mine
            }
            for entry in self._of_all_arms(written).values():
                if self.group.is_first:
                    self.snapshots.add(Entry(**entry))
        own = {arm.name: resume_state.write_arm(self.run / "resume", step, arm.name, arm.state()) for arm in mine}
        digests = self._of_all_arms(own)
        if self.group.is_first:
            resume_state.commit(self.run / "resume", step, epoch, digests)

    def _load(self, split: str) -> AnyImageSet:
        image_set = self.settings.image_set
        return load_image_set(image_set.name, image_set.options, split, self.settings.seed)

    def _description(self) -> dict[str, Any]:
        digests = {f"{images.split}_digest": images.digest() for images in (self.images, self._load("test"))}
        return {
            "format": "coupled.run.1",
            "name": self.settings.name,
            "seed": self.settings.seed,
            "settings": self.settings.resolved(),
            "settings_sha256": self.settings.sha256(),
            "image_set": {"name": self.images.name, "classes": self.images.class_names, **digests},
            "world_size": self.group.world_size,
            "placement": self.placed,
            "threads": torch.get_num_threads(),
            "job": job().name,
            "device": str(self.group.device.type),
            "precision": self.settings.precision,
            **describe_code(),
        }

    def _announce(self, progress: Progress, epoch: int, space: str) -> None:
        """Say once what is about to run."""
        size, sharing = self.settings.batch.size, self.group.data_size
        progress.say(
            f"run {self.run}: {self.images.name}, {len(self.images)} images, {self.settings.epochs} epochs of"
            f" {self.steps_per_epoch} steps" + (f", continuing after epoch {epoch}" if epoch else "")
        )
        progress.say(
            f"global batch {size} = {sharing} x {size // sharing} images, {2 * size - 2} other images' views as"
            f" negatives of an anchor without labels; peak learning rate {self.peak_lr:.6g}"
        )
        for place, names in enumerate(self.placed):
            where = f" (place {place} of {self.group.arms_size})" if self.group.arms_size > 1 else ""
            for name in names:
                progress.say(f"arm {name}{where}: {self.objectives[name]}, {self.sizes[name][0]:,} parameters")
        progress.say(space)
