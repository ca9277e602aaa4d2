"""Image sets: one file each, found by its name; every file has `load(split, *, ...options) -> ImageSet`.

All images of a split are held as uint8, shown at one size. Shape letters: N images, H height, W width.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

SPLITS = ("train", "test")
Colour = tuple[float, float, float]  # red, green, blue


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of an image set.

    `mean` and `std` are per channel, of pixel values in [0, 1], measured on the train split whatever `split` is,
    so that both splits are normalised alike.
    """

    name: str
    split: str
    images_N3HW: Tensor  # uint8, CPU
    labels_N: Tensor  # int64, 0 .. len(class_names) - 1
    class_names: tuple[str, ...]
    mean: Colour
    std: Colour

    def __len__(self) -> int:
        return len(self.labels_N)

    def digest(self) -> str:
        """32 hexadecimal digits (blake2b) over shape, pixels and labels; computed once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return tensors_digest(self.images_N3HW, self.labels_N)


def tensors_digest(images_N3HW: Tensor, labels_N: Tensor) -> str:
    """32 hexadecimal digits (blake2b) over the shape and the bytes of uint8 images and int64 labels."""
    digest = hashlib.blake2b(repr(tuple(images_N3HW.shape)).encode(), digest_size=16)
    digest.update(images_N3HW.contiguous().numpy().data)
    digest.update(np.ascontiguousarray(labels_N.numpy().astype("<i8")).data)
    return digest.hexdigest()


def channel_statistics(images_N3HW: Tensor, chunk: int = 1024) -> tuple[Colour, Colour]:
    """Mean and standard deviation of each channel over all pixels of uint8 images, as fractions of 255.

    The sums are of integers, hence exact: the result depends on neither the order of the images nor the threads.
    A channel without spread gets the std 1/255, one grey level, so that normalising by it stays finite.
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
        raise ValueError(f"image-set split: got {split!r}; allowed are {', '.join(SPLITS)}")


def check_labels(images: ImageSet) -> None:
    """Raise ValueError for a label that no class has, and for a class without a train image."""
    classes, labels_N = len(images.class_names), images.labels_N
    for number in ((labels_N < 0) | (labels_N >= classes)).nonzero().flatten().tolist()[:1]:
        raise ValueError(
            f"image_set: '{images.name}', {images.split} image {number} has label {int(labels_N[number])};"
            f" allowed are 0 to {classes - 1}"
        )
    for label, count in enumerate(torch.bincount(labels_N, minlength=classes).tolist()):
        if count == 0 and images.split == "train":
            raise ValueError(f"image_set: '{images.name}' has no train image of class '{images.class_names[label]}'")


def check_range(option: str, value: int, lowest: int, highest: int | None = None) -> None:
    """Raise ValueError unless lowest <= value <= highest; `option` is the key below `image_set`."""
    if value < lowest or (highest is not None and value > highest):
        allowed = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
        raise ValueError(f"image_set.{option}: got {value}; allowed is {allowed}")


def _colour(values: Tensor) -> Colour:
    red, green, blue = (values / 255).tolist()
    return red, green, blue
