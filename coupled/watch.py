"""What does not fit is refused, and what trains without complaint but gives a figure of something else is warned of.

A warning is one line of text, or none. N images of the set, C classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from coupled.image_sets import AnyImageSet, ImageSet

LEFT_OUT_SHARE = 0.01
COLLAPSED_SPREAD = 0.05


def check_batch_size(size: int, sharing: int, name: str, images: int) -> None:
    """Raise ValueError unless a global batch can be cut into equal parts for the ranks that share it, and the image set
    fills one.
    """
    if size % sharing:
        below = size - size % sharing
        near = " or ".join(str(b) for b in (below, below + sharing) if b)
        raise ValueError(
            f"batch.size: got {size} for {sharing} processes that share it; it must be divisible by them: {near}"
        )
    if size > images:
        raise ValueError(f"batch.size: got {size}; image set '{name}' has {images} images")


def check_perturbations(arms: Mapping[str, Mapping[str, Any]], steps: int) -> None:
    """Raise ValueError for an arm that is to be perturbed after a step that the run does not have."""
    for arm, of in arms.items():
        if (step := of.get("perturb", {}).get("step", 0)) > steps:
            raise ValueError(f"arms.{arm}.perturb.step: got {step}; the run has {steps} steps, allowed is 0 to {steps}")


def unbalanced_classes(labels_N: Tensor, class_names: Sequence[str], batch_size: int, kind: str) -> Iterator[str]:
    """A balanced order cannot put a class into every batch that has fewer images than the epoch has batches."""
    if kind != "balanced":
        return
    batches = len(labels_N) // batch_size
    counts_C = torch.bincount(labels_N, minlength=len(class_names)).tolist()
    short = [(name, count) for name, count in zip(class_names, counts_C, strict=True) if count < batches]
    for name, count in short[:1]:
        others = f" and {len(short) - 1} other classes" if len(short) > 1 else ""
        yield (
            f"batch.order: class '{name}'{others} cannot be in every batch: {count} images for {batches} batches an"
            " epoch; use a larger batch.size"
        )


def same_splits(train: AnyImageSet, test: AnyImageSet) -> Iterator[str]:
    """Train and test are the same images; of images on the disk, files of the same names below the split's folder."""
    if _content(train) == _content(test):
        yield (
            f"image_set: the test images of '{test.name}' are the train images, so scores on test say nothing of new"
            " images"
        )


def _content(images: AnyImageSet) -> object:
    if isinstance(images, ImageSet):
        return images.digest()
    names = [name.partition("/")[2] for name in images.files_N]
    return names, [size for size, _ in images.file_status], images.labels_N.tolist()


def left_out_anchors(arm: str, left_out: int, anchors: int) -> Iterator[str]:
    """More than 1 % of an epoch's anchors had no positive or no negative, and the loss is a mean over the others."""
    if left_out > LEFT_OUT_SHARE * anchors:
        yield (
            f"arm {arm}: {left_out / anchors:.1%} of the epoch's anchors had no positive or no negative and were left"
            " out; use a larger batch.size, more classes or batch.order=balanced"
        )


def collapse(arm: str, spread: float | None) -> Iterator[str]:
    """The projections of different images have become the same."""
    if spread is not None and spread < COLLAPSED_SPREAD:
        yield (
            f"arm {arm}: its projections collapse: their spread is {spread:.2g}, where 1 is even and 0 is one point;"
            " a lower optimizer.base_lr or a higher temperature may help"
        )
