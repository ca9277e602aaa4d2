"""The digits included in scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from coupled.datasets.digits import load


def test_the_digits_never_change() -> None:
    """Published numbers of the demo are valid only for these pixels and this split."""
    assert load("train").digest() == "3ead423257249905e417c6d97a95659b"
    assert load("test").digest() == "ec73c68f458ee3ba540dd64490f83823"


def test_train_and_test_share_no_image_and_leave_none_out() -> None:
    """An image in both splits would turn a test score into a train score."""
    train, test = load("train", image_size=8), load("test", image_size=8)
    assert (len(train), len(test)) == (1440, 357)
    joined = torch.cat([train.images_N3HW, test.images_N3HW])[:, 0].flatten(1)
    bundled = torch.from_numpy(np.rint(load_digits().data * 255 / 16).astype(np.uint8))
    assert sorted(map(bytes, joined.numpy())) == sorted(map(bytes, bundled.numpy()))


def test_the_split_of_the_digits_is_stratified() -> None:
    """Otherwise classes would have different weights in train and test."""
    train, test = (np.bincount(load(split, image_size=8).labels_N) for split in ("train", "test"))
    assert (np.abs(test - (train + test) * 357 / 1797) < 1).all()


def test_pixels_are_interpolated_between_the_measured_ones() -> None:
    """At 16 px two pixels lie between the centres of two measured ones, at a quarter and three quarters of the way."""
    measured_N88 = np.rint(load("train", image_size=8).images_N3HW[:, 0].double().numpy() * 16 / 255)  # 0..16 again
    shown = load("train", image_size=16)
    across_N8 = measured_N88[:, :, 3] * 0.75 + measured_N88[:, :, 4] * 0.25
    wanted_N = across_N8[:, 4] * 0.75 + across_N8[:, 5] * 0.25
    assert np.array_equal(shown.images_N3HW[:, 0, 9, 7].numpy(), np.rint(wanted_N * 255 / 16))
    assert torch.equal(shown.images_N3HW[:, 0], shown.images_N3HW[:, 2])


def test_an_image_size_below_the_original_is_refused() -> None:
    """Shrinking without antialiasing would silently drop pixels."""
    with pytest.raises(ValueError, match=r"dataset.image_size: got 7; allowed is 8 to 256"):
        load("train", image_size=7)
