"""Datasets: one file each, found by its name; every file has `load(split, *, ...options) -> ImageDataset` and `SIZE`.

All images of a split are held as uint8 at one size, or stay on the disk (`ImageFiles`). `SIZE` is the usual side of an
image in pixels; the defaults of other settings follow from it (`defaults_for`).
Shape letters: N images, H height, W width, C classes.
"""

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.datasets._decoder import shorter_side
from coupled.monitoring.commands import suggest
from coupled.monitoring.progress import tracked_count as tracked_count  # for the files of this package
from coupled.monitoring.terminal import say as say

SPLITS = ("train", "test")
MOST_IN_MEMORY = 8 * 2**30  # bytes of decoded images of both splits together; the default
LARGEST_SMALL = 64  # pixels; the papers' protocol for small images is stated for 32, and Tiny-ImageNet follows it
Colour = tuple[float, float, float]  # red, green, blue
Permute = Callable[[int], NDArray[np.int64]]  # a permutation of 0 .. n-1, drawn by the run's seed


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """One split of a dataset.

    `mean` and `std` are per channel, of pixel values in [0, 1], computed on the train split for either split,
    so that both splits are normalised alike. `files_N` names the files of a dataset that is read from image files.
    """

    name: str
    split: str
    images_N3HW: Tensor  # uint8, CPU
    labels_N: Tensor  # int64, 0 .. len(class_names) - 1; without classes all -1
    class_names: tuple[str, ...]
    mean: Colour
    std: Colour
    files_N: tuple[str, ...] = ()  # below the root of the dataset; empty if an image is not a file
    notes: tuple[str, ...] = ()  # notes for the user on how the dataset was read, one line each

    def __len__(self) -> int:
        return len(self.labels_N)

    def digest(self) -> str:
        """32 hexadecimal digits (blake2b) over shape, pixels and labels; computed once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return tensors_digest(self.images_N3HW, self.labels_N)

    def only(self, classes: Sequence[int]) -> "ImageDataset":
        """Return the images of these classes, in their current order; class `classes[k]` gets the label k.

        Mean and std stay those of the whole dataset.
        """
        kept, labels_N, names = _relabelled(self, classes)
        files_N = tuple(self.files_N[number] for number in kept.tolist()) if self.files_N else ()
        images_N3HW = self.images_N3HW[kept]
        return replace(self, images_N3HW=images_N3HW, labels_N=labels_N, class_names=names, files_N=files_N)


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """One split of a dataset whose images stay on the disk, of any sizes; `stream.decoding` decodes them.

    Everything else is as in `ImageDataset`.
    """

    name: str
    split: str
    root: Path
    files_N: tuple[str, ...]  # below `root`
    labels_N: Tensor
    class_names: tuple[str, ...]
    mean: Colour
    std: Colour
    notes: tuple[str, ...] = ()  # as in `ImageDataset`

    def __len__(self) -> int:
        return len(self.labels_N)

    @cached_property
    def file_status(self) -> list[tuple[int, int]]:
        """Size in bytes and time of the last change in nanoseconds of every file."""
        found = ((self.root / name).stat() for name in self.files_N)
        return [(each.st_size, each.st_mtime_ns) for each in found]

    def sampled_sides(self, images: int) -> list[int]:
        """The shorter sides of `images` evenly spaced images, from their headers; of all if there are fewer."""
        chosen = np.linspace(0, len(self), min(images, len(self)), endpoint=False, dtype=np.int64)
        return [shorter_side(self.root / self.files_N[number]) for number in chosen]

    def digest(self) -> str:
        """32 hexadecimal digits (blake2b) over names and sizes of the files and labels; computed once.

        It does not include the pixels: reading all of them would take as long as an epoch.
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for name, (size, _), label in zip(self.files_N, self.file_status, self.labels_N.tolist(), strict=True):
            digest.update(repr((name, size, label)).encode())
        return digest.hexdigest()

    def only(self, classes: Sequence[int]) -> "ImageFiles":
        """As `ImageDataset.only`."""
        kept, labels_N, names = _relabelled(self, classes)
        files_N = tuple(self.files_N[number] for number in kept.tolist())
        return replace(self, files_N=files_N, labels_N=labels_N, class_names=names)


AnyImageDataset = ImageDataset | ImageFiles


def _relabelled(images: AnyImageDataset, classes: Sequence[int]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The numbers of the images of these classes, their new labels, and the names of the classes."""
    new_C = torch.full((len(images.class_names),), -1)
    new_C[list(classes)] = torch.arange(len(classes))
    kept = (new_C[images.labels_N] >= 0).nonzero()[:, 0]
    return kept, new_C[images.labels_N[kept]], tuple(images.class_names[number] for number in classes)


def defaults_for(image_size: int) -> dict[str, dict[str, str]]:
    """Return default settings, by section, for images of `image_size` pixels a side.

    Up to 64 px these are the stem and the augmentation of the papers for 32 px, above it those for 224 px (Luthra et
    al. 2025, arXiv 2510.08852, which states nothing for 84 and 96 px).
    """
    name = "cifar" if image_size <= LARGEST_SMALL else "imagenet"
    return {"encoder": {"stem": name}, "augmentation": {"preset": name}}


def tensors_digest(images_N3HW: Tensor, labels_N: Tensor) -> str:
    """32 hexadecimal digits (blake2b) over the shape and the bytes of uint8 images and int64 labels."""
    digest = hashlib.blake2b(repr(tuple(images_N3HW.shape)).encode(), digest_size=16)
    digest.update(images_N3HW.contiguous().numpy().data)
    digest.update(np.ascontiguousarray(labels_N.numpy().astype("<i8")).data)
    return digest.hexdigest()


def channel_statistics(images_N3HW: Tensor, chunk: int = 1024) -> tuple[Colour, Colour]:
    """Mean and standard deviation of each channel over all pixels of uint8 images, as fractions of 255.

    The sums are of integers, hence exact: the result depends on neither the order of the images nor the threads.
    A constant channel gets the std 1/255, one grey level, so that the normalised values are finite.
    """
    sums, squares = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    for part in images_N3HW.split(chunk):
        values = part.to(torch.int32)
        sums += values.sum(dim=(0, 2, 3), dtype=torch.int64)
        squares += (values * values).sum(dim=(0, 2, 3), dtype=torch.int64)
    count = images_N3HW.numel() // 3
    mean = sums.double() / count
    std = (squares.double() / count - mean.square()).clamp(min=1).sqrt()
    return _colour(mean), _colour(std)


def check_split(split: str) -> None:
    """Raise ValueError unless `split` is one of `SPLITS`."""
    if split not in SPLITS:
        raise ValueError(f"dataset split: got {split!r}; allowed are {', '.join(SPLITS)}")


def check_labels(images: AnyImageDataset) -> None:
    """Raise ValueError for a label without a class, and for a class without a train image.

    A dataset without labels has no classes, and -1 for every label.
    """
    classes, labels_N = len(images.class_names), images.labels_N
    if classes == 0 and bool((labels_N == -1).all()):
        return
    for number in ((labels_N < 0) | (labels_N >= classes)).nonzero().flatten().tolist()[:1]:
        raise ValueError(
            f"dataset: '{images.name}', {images.split} image {number} has label {int(labels_N[number])};"
            f" allowed are 0 to {classes - 1}"
        )
    for label, count in enumerate(torch.bincount(labels_N, minlength=classes).tolist()):
        if count == 0 and images.split == "train":
            raise ValueError(f"dataset: '{images.name}' has no train image of class '{images.class_names[label]}'")


def check_range(option: str, value: int, lowest: int, highest: int | None = None) -> None:
    """Raise ValueError unless lowest <= value <= highest; `option` is the key below `dataset`."""
    if value < lowest or (highest is not None and value > highest):
        allowed = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
        raise ValueError(f"dataset.{option}: got {value}; allowed is {allowed}")


def _colour(values: Tensor) -> Colour:
    red, green, blue = (values / 255).tolist()
    return red, green, blue


def prepare_command(name: str, sources: str, root: Path) -> str:
    """The command line that unpacks `sources` of the dataset `name` into `root`."""
    return f"{suggest('prepare-data', name)} {sources} {shlex.join(['--output', str(root)])}"
