"""The option `label_noise` of every dataset, and the images of the training steps, if they are not the split train.

Noise changes only the labels of the training steps. Every analysis, and the monitor, uses the true labels.
"""

from dataclasses import replace
from typing import Any, NamedTuple

from coupled.datasets import AnyImageDataset
from coupled.stream.known_labels import noisy_labels

RANDOM = "random"
LabelNoise = float | str


class TrainImages(NamedTuple):
    """The images of the training steps, and the split train with true labels, which the analyses use.

    They are the same object unless labels have noise or the steps use unlabelled images.
    """

    steps: AnyImageDataset
    train: AnyImageDataset


def checked_label_noise(given: Any) -> LabelNoise | None:
    """Return the share of labels to replace, "random", or None for no noise. Raises ValueError for another value."""
    if given is None or given == RANDOM:
        return given
    if type(given) not in (int, float) or not 0 <= given <= 1:
        raise ValueError(f"dataset.label_noise: got {given}; allowed is a share of 0 to 1, or random")
    return float(given) or None


def with_noise(images: AnyImageDataset, noise: LabelNoise | None, seed: int) -> AnyImageDataset:
    """Return the images with symmetric label noise drawn by `seed`.

    Each label is replaced with probability `noise` by one of the other classes, each equally likely. "random" is
    (C - 1) / C, with which every label is uniform over all C classes and independent of the true one; 1 never keeps a
    label. With one seed, a smaller share replaces a subset of the labels, by the same classes. Raises ValueError for a
    dataset with fewer than 2 classes.
    """
    if noise is None:
        return images
    classes = len(images.class_names)
    if classes < 2:
        raise ValueError(
            f"dataset.label_noise: got {noise}, but '{images.name}' has {classes} classes; at least 2 are needed"
        )
    share = (classes - 1) / classes if noise == RANDOM else float(noise)
    return replace(images, labels_N=noisy_labels(images.labels_N, classes, share, seed))


def described(images: TrainImages) -> dict[str, Any]:
    """Return the keys of run.json about the images of the training steps; {} if they are the split train."""
    steps, train = images
    if steps is train:
        return {}
    about: dict[str, Any] = {"training_images": len(steps), "training_digest": steps.digest()}
    if steps.class_names:
        about["replaced_labels"] = int((steps.labels_N != train.labels_N).sum())
    return about
