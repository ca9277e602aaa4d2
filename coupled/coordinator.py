"""The coordinator: builds identical arms, proves it, and feeds each the same batches; snapshots and resume.

W world size.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from coupled import by_name, resume_state
from coupled.arm import Arm, StepResult, find_objective
from coupled.checked import check_options
from coupled.image_sets import SPLITS, ImageSet
from coupled.network import build_network, parameter_count, shared_tensors
from coupled.optimizer import learning_rate, peak_learning_rate
from coupled.process_group import ProcessGroup, barrier, gather_digests
from coupled.progress import Progress
from coupled.run_log import RunLog, check_folder, describe_code, prepare_folder
from coupled.settings import Settings
from coupled.snapshots import SnapshotStore, snapshot_epochs, tensors_digest
from coupled.stream.batches import Batch, batches
from coupled.stream.order import order
from coupled.stream.view_plan import ViewRecipe, view_plan

MIB = 2**20


class Coordinator:
    """Trains the arms of `settings` in lockstep, in the process group `group`, into the folder `run`."""

    def __init__(self, settings: Settings, group: ProcessGroup, run: Path) -> None:
        self.settings, self.group, self.run = settings, group, run
        objectives = {name: find_objective(name, arm, settings.temperature) for name, arm in settings.arms.items()}
        if not group.is_first:
            barrier()  # rank 0 loads first: it may have to download or to fill a cache
        self.images = load_image_set(settings, "train")
        if group.is_first:
            barrier()
        size = settings.batch.size
        if size % group.world_size:
            below = size - size % group.world_size
            near = " or ".join(str(b) for b in (below, below + group.world_size) if b)
            raise ValueError(
                f"batch.size: got {size} for {group.world_size} processes; it must be divisible by their number: {near}"
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
        classes = len(self.images.class_names)
        self.arms = [
            Arm(name, settings, objective, shared, classes, group.device) for name, objective in objectives.items()
        ]
        check_equal_start(self.arms)
        self.snapshots = SnapshotStore(run / "snapshots")
        self.kept_epochs = snapshot_epochs(settings.epochs, settings.snapshots.every, settings.snapshots.dense_until)

    def train(self, resume: bool = False, overwrite: bool = False) -> None:
        """Train to the last epoch.

        Raises ValueError if a run is in the way or cannot be resumed, FloatingPointError if an arm's loss or gradient
        is not finite (it names arm, epoch and step).
        """
        check_folder(self.run, self.settings.resolved(), resume, overwrite)
        barrier()
        if self.group.is_first:
            prepare_folder(self.run, self._description(), resume)
        barrier()
        done = resume_state.read_newest(self.run / "resume")
        epoch, step = (done.epoch, done.step) if done else (0, 0)
        if done:
            for arm in self.arms:
                arm.load_state(done.arms[arm.name])
        names = [arm.name for arm in self.arms]
        with contextlib.ExitStack() as opened:
            progress = Progress(names, step, self.settings.epochs * self.steps_per_epoch, self.group.is_first)
            opened.enter_context(progress)
            self._announce(progress, epoch)
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
        seconds = dict.fromkeys((arm.name for arm in self.arms), 0.0)
        losses = dict.fromkeys(seconds, 0.0)
        for batch in self._batches(epoch):
            step += 1
            lr = self._learning_rate(step)
            results: dict[str, StepResult] = {}
            for arm in self.arms:
                began = time.monotonic()
                try:
                    results[arm.name] = arm.step(batch, lr)
                except FloatingPointError as error:
                    raise FloatingPointError(f"{error} in epoch {epoch}, step {step}: the run stops") from None
                seconds[arm.name] += time.monotonic() - began
                losses[arm.name] += results[arm.name].loss / self.steps_per_epoch
            images = (batch.number + 1) * self.settings.batch.size
            progress.step(epoch, step, {a: (r.loss, r.grad_norm, images / seconds[a]) for a, r in results.items()})
            if self.group.is_first:
                values = [value for result in results.values() for value in result]
                self.log.steps.row([epoch, step, batch.inputs_digest, lr, *values])
        if self.group.is_first:
            for name, loss in losses.items():
                rate = self.steps_per_epoch * self.settings.batch.size / seconds[name]
                self.log.epochs.row([epoch, name, loss, self._learning_rate(step), seconds[name], rate])
            self._keep(epoch, step)
        progress.epoch(epoch, self.settings.epochs, step, losses)
        return step

    def _batches(self, epoch: int) -> Iterator[Batch]:
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
        """Rows and snapshots first, then the resume state: what it counts as done is on the disk."""
        self.log.sync()
        if epoch in self.kept_epochs:
            about = {"run": self.settings.name, "settings_sha256": self.settings.sha256()}
            for arm in self.arms:
                self.snapshots.write(arm.name, epoch, arm.network.state_dict(), step=step, metadata=about)
        state = resume_state.ResumeState(step, epoch, {arm.name: arm.state() for arm in self.arms})
        resume_state.write(self.run / "resume", state)

    def _description(self) -> dict[str, Any]:
        digests = {f"{split}_digest": load_image_set(self.settings, split).digest() for split in SPLITS}
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

    def _announce(self, progress: Progress, epoch: int) -> None:
        """Say once what is about to run. Raises ValueError if its snapshots do not fit on the disk."""
        size, world_size = self.settings.batch.size, self.group.world_size
        one = sum(4 * t.numel() for arm in self.arms for t in arm.network.state_dict().values())
        needed = one * sum(e > epoch or e == epoch == 0 for e in self.kept_epochs)
        free = shutil.disk_usage(self.run).free
        progress.say(
            f"run {self.run}: {self.images.name}, {len(self.images)} images, {self.settings.epochs} epochs of"
            f" {self.steps_per_epoch} steps" + (f", continuing after epoch {epoch}" if epoch else "")
        )
        progress.say(
            f"global batch {size} = {world_size} x {size // world_size} images, {2 * size - 2} other images' views as"
            f" negatives of an anchor (cl); peak learning rate {self.peak_lr:.6g}"
        )
        for arm in self.arms:
            progress.say(f"arm {arm.name}: {arm.describe()}, {parameter_count(arm.network):,} parameters")
        progress.say(f"snapshots need {needed / MIB:,.0f} MiB of {free / MIB:,.0f} MiB free on the disk")
        if needed > free:
            raise ValueError(
                f"snapshots: {needed / MIB:,.0f} MiB needed, {free / MIB:,.0f} MiB free at '{self.run}';"
                " thin them with snapshots.every and snapshots.dense_until, or free space"
            )


def load_image_set(settings: Settings, split: str) -> ImageSet:
    """The split of the image set that `settings` name. Raises ValueError for an unknown name or option."""
    try:
        load = by_name.find("coupled.image_sets", settings.image_set.name).load
    except ValueError as error:
        raise ValueError(f"image_set.name: {error}") from None
    images: ImageSet = load(split, **check_options(load, settings.image_set.options, "image_set"))
    return images


def check_equal_start(arms: Sequence[Arm]) -> None:
    """Raise RuntimeError unless the shared tensors of all arms on all ranks have equal bytes."""
    digests = {arm.name: gather_digests(tensors_digest(shared_tensors(arm.network))) for arm in arms}
    expected = digests[arms[0].name][0]
    for name, of_ranks in digests.items():
        for rank, found in enumerate(of_ranks):
            if found != expected:
                raise RuntimeError(
                    f"arm '{name}' on rank {rank} does not start like arm '{arms[0].name}' on rank 0:"
                    f" its shared tensors have digest {found}, expected {expected}"
                )
