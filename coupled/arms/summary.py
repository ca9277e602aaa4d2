"""The description of a run before it starts: the content of run.json and the lines that are printed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from coupled.arms import sanity_checks
from coupled.arms.build import Arms
from coupled.config.arm_sections import not_shared
from coupled.config.augmentation import AugmentationSettings
from coupled.config.by_name import find, known
from coupled.config.code_of_settings import files_of
from coupled.config.label_noise import TrainImages, described
from coupled.config.registry import Objective
from coupled.datasets import AnyImageDataset, ImageDataset, ImageFiles
from coupled.models.encoders import encoder_width
from coupled.models.freezing import frozen_names
from coupled.monitoring.progress import Progress
from coupled.monitoring.terminal import counted
from coupled.parallel.process_group import ProcessGroup
from coupled.storage.checkpoints import KEEP_NEWEST
from coupled.storage.dataset_record import describe_images
from coupled.storage.run_description import describe_code

NAMED = 20  # classes that are printed; run.json has all
SAMPLED = 256  # images on the disk whose headers show whether images are enlarged


def description(
    settings: Mapping[str, Any],
    settings_sha256: str,
    images: Mapping[str, AnyImageDataset],
    trained: AnyImageDataset,
    group: ProcessGroup,
    arms: Arms,
) -> dict[str, Any]:
    """Return the content of run.json; `images` by split, and the images of the training steps."""
    return {
        "format": "coupled.run.1",
        "name": settings["name"],
        "seed": settings["seed"],
        "settings": settings,
        "settings_sha256": settings_sha256,
        **({"code_files": files_of(settings["code"])} if "code" in settings else {}),
        "dataset": describe_images(settings["dataset"]["name"], images)
        | described(TrainImages(trained, images["train"])),
        "world_size": group.world_size,
        "placement": arms.placed,
        "threads": torch.get_num_threads(),
        "launch": {"name": group.launch.name, "agents": list(group.launch.agents)},
        "device": str(group.device.type),
        "precision": settings["precision"],
        **({} if arms.weights is None else {"start": arms.weights.description()}),
        **describe_code(),
    }


def announce(
    progress: Progress,
    run: Path,
    images: Mapping[str, AnyImageDataset],
    settings: Mapping[str, Any],
    step: int,
    trained: AnyImageDataset,
    peak_lr: float,
    group: ProcessGroup,
    arms: Arms,
    space_left: str,
) -> None:
    """Print what is about to run with the resolved `settings` after `step` completed steps; warn of equal splits.

    `images` are by split, `trained` are those of the training steps, `space_left` is the line on free disk space.
    """
    own = not_shared(settings)
    epochs, size, given = settings["epochs"], settings["batch"]["size"], settings["arms"]
    train, test = images["train"], images["test"]
    shown = f" of {train.images_N3HW.shape[-1]} px" if isinstance(train, ImageDataset) else ""
    progress.say(
        f"run {run}: {train.name}, {len(train)} train, {len(test)} test images{shown},"
        f" {len(train.class_names) or 'no'} classes; {counted(epochs, 'epoch')} of"
        f" {counted(len(trained) // size, 'step')}" + (f", continuing after step {step}" if step else "")
    )
    for note in of_train_images(TrainImages(trained, train)):
        progress.say(note)
    if settings["dataset"].get("classes") is not None:
        progress.say(f"classes: {listed(train.class_names)}")
    for note in (*train.notes, *test.notes, *enlarged(train, settings["dataset"]["image_size"])):
        progress.say(note)
    views = AugmentationSettings.model_validate(settings["augmentation"]).views
    progress.say(
        f"global batch {size} = {group.data_size} x {size // group.data_size} images, {views} views of each, so"
        f" {views * (size - 1)} views of other images; peak learning rate {peak_lr:.6g}"
    )
    for place, names in enumerate(arms.placed):
        where = f" (arm group {place} of {group.arms_size})" if group.arms_size > 1 else ""
        for name in names:
            more = controls(given[name]) + (f"; not shared: {', '.join(own[name])}" if name in own else "")
            progress.say(f"arm {name}{where}: {arms.objectives[name]}, {arms.sizes[name][0]:,} parameters{more}")
    for note in papers_temperatures(arms.objectives, settings["temperature"]):
        progress.say(note)
    for note in (*(arms.weights.notes() if arms.weights else ()), *frozen(arms, settings["encoder"].get("freeze", ()))):
        progress.say(note)
    progress.say(arms.memory)
    progress.say(space_left)
    progress.warn(*sanity_checks.same_splits(train, test), *biased_monitor(arms, settings["monitor"], len(test)))


def of_train_images(images: TrainImages) -> Iterator[str]:
    """Yield a line if the training steps use other images or labels than the split train."""
    about = described(images)
    if "replaced_labels" in about:
        yield f"label noise: {about['replaced_labels']} of {about['training_images']} training labels are replaced"
    elif about:
        yield f"training steps use {about['training_images']} images without labels; analyses use the split train"


def papers_temperatures(objectives: Mapping[str, Objective], temperature: float) -> Iterator[str]:
    """Yield a line for each arm that has the temperature of the run, where the paper of its objective has another."""
    of_package = known("coupled.objectives")
    for arm, objective in objectives.items():
        module = find("coupled.objectives", objective.name) if objective.name in of_package else None
        paper = getattr(module, "PAPER_TEMPERATURE", None)
        if paper is not None and objective.options["temperature"] == temperature != paper:
            yield (
                f"arm {arm}: temperature {temperature:g} is that of the run; the paper of {objective.name} has"
                f" {paper:g} (arms.{arm}.temperature={paper:g})"
            )


def frozen(arms: Arms, patterns: Sequence[str]) -> Iterator[str]:
    """Yield a line on the frozen parameters of the encoder, if there are any."""
    encoders = [arm.network.get_submodule("encoder") for arm in arms.own[:1]]
    for encoder in encoders if patterns else ():
        count, names = len(list(encoder.parameters())), frozen_names(dict(encoder.named_parameters()), patterns)
        yield (
            f"frozen: {len(names)} of the {count} parameters of the encoder; a batch norm whose parameters are all"
            " frozen is in evaluation mode and keeps its running averages"
        )


def biased_monitor(arms: Arms, monitor: Mapping[str, Any] | None, test_images: int) -> Iterator[str]:
    """Yield a warning if the monitor computes the biased CKA from fewer images than the embedding has features."""
    biased = [name for name in ("cka", "angle") if name in (monitor or {}).get("metrics", ())]
    for arm in arms.own[:1] if biased else ():
        images = min((monitor or {})["num_images"], test_images)
        if images < (width := encoder_width(arm.network.get_submodule("encoder"))):
            yield (
                f"monitor: {' and '.join(biased)} of {images} images with {width} features: a biased estimate, by which"
                " independent representations look similar; use cka_debiased (monitor.metrics) or more images"
                " (monitor.num_images)"
            )


def enlarged(train: AnyImageDataset, size: int) -> Iterator[str]:
    """Yield a line if train images are smaller than a view of `size` pixels; a dataset that resizes has its own."""
    sampled = isinstance(train, ImageFiles)
    sides = train.sampled_sides(SAMPLED) if isinstance(train, ImageFiles) else [min(train.images_N3HW.shape[-2:])]
    smaller = [side for side in sides if side < size]
    if smaller:
        which = f"{len(smaller)} of {len(sides)} train images that were looked at" if sampled else "the train images"
        yield (
            f"dataset.image_size: {which} are enlarged to {size} px; their shorter side is {min(smaller)} px"
            f"{' or more' if sampled else ''}"
        )


def listed(names: Sequence[str]) -> str:
    """Return the names, separated by commas; of many names only the first ones."""
    more = f", ... ({len(names)} in all)" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def controls(arm: Mapping[str, Any]) -> str:
    """Return the controls of an arm (twin, perturbation, unshared randomness) as the end of its line."""
    moved, own = arm.get("perturb"), arm.get("unshared")
    said = [f"twin of {arm['twin']}"] if arm.get("twin") else []
    said += [f"a weight moved by {moved['ulps']} ulp at step {moved['step']}"] if moved else []
    said += [f"its own {', '.join(own)}"] if own else []
    return "".join(f"; {each}" for each in said)


def bytes_needed(arms: Arms, kept_epochs: Collection[int], epoch: int) -> int:
    """Return the bytes that a run writes after `epoch`, if it keeps the snapshots of `kept_epochs`."""
    one = sum(bytes_ for _, bytes_ in arms.sizes.values())
    snapshots = sum(e > epoch or e == epoch == 0 for e in kept_epochs)
    # a checkpoint holds weights and up to two moments; a third checkpoint is written before the oldest is deleted
    return one * (snapshots + 3 * (KEEP_NEWEST + 1))
