"""Checks of a run: errors for settings that cannot work, one-line warnings for those that give misleading results.

Shape letters: N images of the dataset, C classes, K batches of an epoch, G images of the global batch.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.arms.without_effect import without_effect
from coupled.config.augmentation import AugmentationSettings
from coupled.config.controls import RandomSources
from coupled.config.monitor import unpaired
from coupled.config.registry import Objective
from coupled.datasets import AnyImageDataset, ImageDataset
from coupled.models.heads import kept_of_one_width
from coupled.objectives import Inputs, Loss
from coupled.stream.sampler import order

SKIPPED_SHARE = 0.01
LOOKED_THROUGH = 20_000_000  # at most this many images, over all epochs, are searched for a batch of one class
UNLIKELY = 1e-3  # expected number of batches of one class in a run below which nothing is searched
COLLAPSED_SPREAD = 0.05


def check_batch_size(size: int, sharing: int, name: str, images: int) -> None:
    """Raise ValueError unless a global batch divides equally among the ranks that share it, and the dataset has at
    least one batch.
    """
    if size % sharing:
        below = size - size % sharing
        near = " or ".join(str(b) for b in (below, below + sharing) if b)
        raise ValueError(
            f"batch.size: got {size} for {sharing} processes that share it; use a multiple of {sharing}: {near}"
        )
    if size > images:
        raise ValueError(f"batch.size: got {size}; dataset '{name}' has {images} images; allowed is at most {images}")


def check_views(objectives: Mapping[str, Objective], views: int, local_views: int) -> None:
    """Raise ValueError for objectives that do not take `views` views, and for missing or unused local views."""
    for arm, objective in objectives.items():
        if objective.needs.views not in (None, views):
            raise ValueError(
                f"augmentation.views: got {views}; '{objective.name}' of arm {arm} takes {objective.needs.views}"
            )
        if objective.needs.local and not local_views:
            raise ValueError(
                f"augmentation.local_views: got 0; objective '{objective.name}' of arm {arm} takes local views: set"
                " augmentation.local_views and augmentation.local_size"
            )
    if local_views and not any(objective.needs.local for objective in objectives.values()):
        raise ValueError(
            f"augmentation.local_views: got {local_views}; no arm's objective takes local views: set it to 0"
        )


def check_unlabelled(objectives: Mapping[str, Objective], sampler: str, probed: bool) -> None:
    """For a dataset without labels: raise ValueError if a probe, the sampler or arms need labels, naming all arms."""
    if probed:
        raise ValueError("online_probe: the training images have no labels, which a classifier needs; set it to null")
    if sampler == "balanced":
        raise ValueError("batch.sampler: got 'balanced', but the training images have no labels; allowed is uniform")
    needing = [f"{arm} ({each.name})" for arm, each in objectives.items() if depends_on_labels(each)]
    if needing:
        raise ValueError(
            f"arms: {', '.join(needing)} need labels, and the training images have none; remove these arms, for example"
            f" with arms.{needing[0].partition(' ')[0]}=null, or put the images of each class in a separate folder"
        )


def depends_on_labels(objective: Objective) -> bool:
    """Return whether an objective has an output per class, or its loss of four images changes with their labels."""
    if any(head.per_class for head in objective.needs.heads.values()):
        return True
    if any(kept.start == "no_class" for kept in objective.needs.kept.values()):  # labels of later steps
        return True
    if objective.needs.label_fraction == 0:
        return False
    values_32, labels_B = torch.arange(32, dtype=torch.float64).square().sin(), torch.arange(4)
    values_VBD = torch.nn.functional.normalize(values_32.view(2, 4, 4), dim=-1)
    different, paired = (_loss(objective, values_VBD, each_B) for each_B in (labels_B, labels_B // 2))
    return not torch.equal(different.mean, paired.mean) or not torch.equal(different.counted, paired.counted)


def before_start(
    settings: Mapping[str, Any],
    objectives: Mapping[str, Objective],
    used: Mapping[str, RandomSources],
    images: AnyImageDataset,
    device: str,
) -> list[str]:
    """Return warnings about a run with the resolved `settings` on the train `images`; raise ValueError for errors."""
    batch, epochs, labels_N = settings["batch"], settings["epochs"], images.labels_N
    views = AugmentationSettings.model_validate(settings["augmentation"]).views
    steps = epochs * (len(images) // batch["size"])
    for arm, of in settings["arms"].items():
        if (step := of.get("perturb", {}).get("step", 0)) > steps:
            raise ValueError(f"arms.{arm}.perturb.step: got {step}; the run has {steps} steps, allowed is 0 to {steps}")
    seeds = {arm: sources.seed("order", settings["seed"]) for arm, sources in used.items()}
    always = [*unpaired(settings.get("monitor"), [*settings["arms"]]), *without_effect(settings, objectives, device)]
    always += unfilled_queues(objectives, steps, views * batch["size"])
    if not images.class_names:
        return always
    return [
        *always,
        *one_class(objectives, seeds, labels_N.numpy(), batch["size"], batch["sampler"], epochs, views),
        *unbalanced_classes(labels_N, images.class_names, batch["size"], batch["sampler"]),
    ]


def unfilled_queues(objectives: Mapping[str, Objective], steps: int, rows_of_step: int) -> Iterator[str]:
    """Warn of queues that a run of these steps does not fill: random rows stay negatives until its end, or the queue is
    never used.
    """
    for arm, objective in objectives.items():
        filling = max(steps - objective.options.get("queue_start", 0), 0)
        for name, kept in objective.needs.kept.items():
            rows, added = kept.shape[0], filling * rows_of_step
            unused = name == "queue" and "queue_start" in objective.options  # such a queue is used once it is full
            is_queue = unused or (kept.start == "unit_rows" and not kept.snapshot)
            if is_queue and isinstance(rows, int) and steps > 0 and added < rows:
                key = "queue_size" if "queue_size" in objective.options else name
                yield (
                    f"arms.{arm}.{key}: got {rows:,}, but the run adds only {added:,} rows ({filling:,} x"
                    f" {rows_of_step}); "
                    + ("the queue has no effect" if unused else "the other rows keep their random start until the end")
                    + "; use fewer rows, or more epochs"
                )


def one_class(
    objectives: Mapping[str, Objective],
    order_seeds: Mapping[str, int],
    labels_N: NDArray[np.int64],
    batch_size: int,
    sampler: str,
    epochs: int,
    views: int = 2,
) -> Iterator[str]:
    """Warn if batches whose images all have one class are expected after the searched epochs.

    In such a batch no anchor of an objective that contrasts classes has a negative, which ends the run. Raises
    ValueError if there is such a batch in the first epochs, whose order of images is computed here.
    """
    shares_C = np.bincount(labels_N) / len(labels_N)
    expected = epochs * (len(labels_N) // batch_size) * float((shares_C**batch_size).sum())
    if expected < UNLIKELY:
        return
    labels_B = torch.zeros(batch_size, dtype=torch.int64)
    lost = {arm: order_seeds[arm] for arm, objective in objectives.items() if not counts(objective, labels_B, views)}
    looked = min(epochs, max(1, LOOKED_THROUGH // len(labels_N)))
    for epoch, seed in itertools.product(range(1, looked + 1), dict.fromkeys(lost.values())):
        labels_KG = labels_N[order(seed, epoch, labels_N, batch_size, sampler)]
        alone_K = (labels_KG == labels_KG[:, :1]).all(1)
        if alone_K.any():
            arms = ", ".join(arm for arm in lost if lost[arm] == seed)
            step = (epoch - 1) * len(alone_K) + int(alone_K.argmax()) + 1
            raise ValueError(
                f"batch.size: got {batch_size}; the images of step {step} are all of one class, so no anchor of arm"
                f" {arms} has a negative and the run would stop; use a larger batch.size or batch.sampler=balanced"
            )
    if lost and looked < epochs and sampler == "uniform":
        yield (
            f"batch.size: got {batch_size}; {expected * (1 - looked / epochs):.2g} batches of one class are expected"
            f" after epoch {looked}. In such a batch no anchor of arm {', '.join(lost)} has a negative, so the run"
            " stops; use a larger batch.size or batch.sampler=balanced"
        )


def counts(objective: Objective, labels_B: Tensor, views: int = 2) -> bool:
    """Return whether the objective counts any anchor in a batch with these labels. An objective that may not know all
    labels, or not the true ones, is given none.
    """
    certain = objective.needs.label_fraction == 1 and objective.needs.label_noise == 0
    seen_B = labels_B if certain else torch.full_like(labels_B, -1)
    return int(_loss(objective, torch.ones(views, len(labels_B), int(labels_B.max()) + 2), seen_B).counted) > 0


def _loss(objective: Objective, values_VBD: Tensor, labels_B: Tensor) -> Loss:
    """Return the loss on one process if all outputs have these values, repeated up to the width of the output."""
    widths = objective.needs.widths(values_VBD.shape[-1])
    outputs = {
        name: values_VBD.repeat(1, 1, -(-widths.get(name, 1) // values_VBD.shape[-1]))[..., : widths.get(name)]
        for name in (*objective.needs.outputs, *objective.needs.gathered)
    }
    cells = max(objective.needs.least_cells.values(), default=1)  # with equal values
    outputs |= {name: values_VBD[:, :, None].expand(-1, -1, cells, -1) for name in objective.needs.maps}
    kept = kept_of_one_width(objective.needs, values_VBD.shape[-1], values_VBD.dtype)
    return objective.function(Inputs(outputs, outputs, labels_B, labels_B, kept=kept), **objective.options)


def unbalanced_classes(labels_N: Tensor, class_names: Sequence[str], batch_size: int, sampler: str) -> Iterator[str]:
    """Warn if a class has fewer images than an epoch has batches, so that not every batch can contain it."""
    if sampler != "balanced":
        return
    batches = len(labels_N) // batch_size
    counts_C = torch.bincount(labels_N, minlength=len(class_names)).tolist()
    short = [(name, count) for name, count in zip(class_names, counts_C, strict=True) if count < batches]
    for name, count in short[:1]:
        others = f" and {len(short) - 1} other classes" if len(short) > 1 else ""
        yield (
            f"batch.sampler: class '{name}'{others} cannot be in every batch: {count} images for {batches} batches per"
            " epoch; use a larger batch.size"
        )


def same_splits(train: AnyImageDataset, test: AnyImageDataset) -> Iterator[str]:
    """Warn if train and test are the same images; images on the disk are compared by file name, size and label."""
    if _content(train) == _content(test):
        yield (
            f"dataset: the test images of '{test.name}' are the train images, so test scores do not measure"
            " generalisation"
        )


def _content(images: AnyImageDataset) -> object:
    if isinstance(images, ImageDataset):
        return images.digest()
    names = [name.partition("/")[2] for name in images.files_N]
    return names, [size for size, _ in images.file_status], images.labels_N.tolist()


def skipped_anchors_message(arm: str, skipped: int, anchors: int) -> Iterator[str]:
    """Warn if more than 1 % of an epoch's anchors were skipped: the loss is the mean over the other anchors."""
    if skipped > SKIPPED_SHARE * anchors:
        yield (
            f"arm {arm}: {skipped / anchors:.1%} of the epoch's anchors had no positive or no negative and were left"
            " out; use a larger batch.size, more classes or batch.sampler=balanced"
        )


def collapse(arm: str, spread: float | None) -> Iterator[str]:
    """Warn if the projections of different images have become nearly equal."""
    if spread is not None and spread < COLLAPSED_SPREAD:
        yield (
            f"arm {arm}: the projections are collapsing: their standard deviation is {spread:.2g} times that of"
            " a uniform distribution on the sphere; try a lower optimizer.base_lr or a higher temperature"
        )
