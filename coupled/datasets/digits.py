"""Handwritten digits, the set bundled with scikit-learn: 1 440 train and 357 test images of 10 classes.

Source: the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, 1998), UCI Machine
Learning Repository, doi 10.24432/C50P49, licence CC BY 4.0. An image is 8x8 with grey values 0..16.
Nothing is downloaded and no file is written.
"""

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

from coupled.datasets import ImageDataset, channel_statistics, check_range, check_split

SIZE = 16
TEST_IMAGES = 357
SPLIT_KEY = 0  # key of the Philox generator that shuffles each class before the split; never changed


def load(split: str, *, image_size: int = SIZE) -> ImageDataset:
    """The digits at `image_size` x `image_size` pixels (8 to 256), grey as RGB, bilinear.

    The split is fixed and class-stratified. Raises ValueError for an unknown split or another size.
    """
    check_split(split)
    check_range("image_size", image_size, 8, 256)
    labels_N, grey_N88 = _bundled()
    images_N3HW = _shown_at(image_size, grey_N88)
    rows = dict(zip(("train", "test"), _split_rows(labels_N.numpy()), strict=True))
    mean, std = channel_statistics(images_N3HW[rows["train"]])
    return ImageDataset(
        name="digits",
        split=split,
        images_N3HW=images_N3HW[rows[split]],
        labels_N=labels_N[rows[split]],
        class_names=tuple(str(digit) for digit in range(10)),
        mean=mean,
        std=std,
    )


@cache
def _bundled() -> tuple[Tensor, Tensor]:
    """Labels and grey values 0..16, read once a process: scikit-learn parses a text file."""
    bundled = load_digits()
    return torch.from_numpy(bundled.target.astype(np.int64)), torch.from_numpy(bundled.images)


def _split_rows(labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of train and of test, each ascending.

    The images are sorted by class and, within a class, by random keys; about every fifth goes to test, evenly
    spaced, so the test share of each class is exact up to rounding. Philox.random_raw is the same in every NumPy.
    """
    keys_N = np.random.Philox(key=SPLIT_KEY).random_raw(len(labels_N))
    by_class = np.lexsort((keys_N, labels_N))
    test = np.sort(by_class[np.arange(TEST_IMAGES) * len(labels_N) // TEST_IMAGES])
    return np.setdiff1d(np.arange(len(labels_N)), test), test


def _shown_at(size: int, grey_N88: Tensor) -> Tensor:
    # Interpolating 0..16 in float64 before scaling keeps every product of size 16 exact, hence equal on any machine.
    grey_N1HW = interpolate(grey_N88.double()[:, None], size=(size, size), mode="bilinear", align_corners=False)
    return (grey_N1HW * 255 / 16).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
