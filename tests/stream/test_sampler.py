from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coupled.stream.sampler import SAMPLERS, order

LABELS = np.array([0] * 7 + [1] * 2 + [2] * 14)


@st.composite
def label_sets(draw):
    """Labels of 1 to 80 images and a batch size that fits."""
    labels_N = draw(arrays(np.int64, st.integers(1, 80), elements=st.integers(0, 6)))
    return labels_N, draw(st.integers(1, len(labels_N)))


@pytest.mark.parametrize("kind", SAMPLERS)
@given(labels_and_size=label_sets(), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
def test_an_epoch_shows_each_image_at_most_once_in_full_batches(kind, labels_and_size, seed, epoch):
    """Otherwise an epoch would repeat images, or end with a smaller batch whose losses mean something else."""
    labels_N, size = labels_and_size
    order_KG = order(seed, epoch, labels_N, size, kind)
    assert order_KG.shape == (len(labels_N) // size, size)
    assert order_KG.dtype == np.int64
    assert len(set(order_KG.ravel().tolist())) == order_KG.size
    assert set(order_KG.ravel().tolist()) <= set(range(len(labels_N)))


@given(labels_and_size=label_sets(), seed=st.integers(0, 2**63 - 1))
def test_every_balanced_batch_holds_each_class_in_proportion(labels_and_size, seed):
    """Otherwise `balanced` would not be: a class could be absent from a batch that should hold it."""
    labels_N, size = labels_and_size
    for indices_G in order(seed, 0, labels_N, size, "balanced"):
        held = Counter(labels_N[indices_G].tolist())
        for label, images in Counter(labels_N.tolist()).items():
            assert size * images // len(labels_N) <= held[label] <= -(-size * images // len(labels_N))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_an_order_depends_on_seed_and_epoch_alone(kind):
    """Otherwise a resumed run, or a second epoch, would see other images."""
    first = order(0, 1, LABELS, 4, kind)
    assert np.array_equal(first, order(0, 1, LABELS, 4, kind))
    assert not np.array_equal(first, order(1, 0, LABELS, 4, kind))
    assert not np.array_equal(first, order(0, 2, LABELS, 4, kind))


def test_the_uniform_order_does_not_depend_on_labels_or_batch_size():
    """Otherwise runs with other labels or batch sizes would see the images in another order."""
    assert np.array_equal(order(0, 1, LABELS, 4).ravel(), order(0, 1, LABELS * 0, 5).ravel())


@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_image_is_equally_likely_in_every_batch(kind):
    """Otherwise some images would be dropped, or shown early, more often than others."""
    epochs, size, images = 900, 5, len(LABELS)
    times_NK = np.zeros((images, images // size))
    for epoch in range(epochs):
        for k, indices_G in enumerate(order(3, epoch, LABELS, size, kind)):
            times_NK[indices_G, k] += 1
    share = size / images
    assert abs(times_NK / epochs - share).max() < 5 * np.sqrt(share * (1 - share) / epochs)


def test_positions_within_a_balanced_batch_are_shuffled():
    """Otherwise the first rank, which takes the first positions, would see the first classes only."""
    labels_NB = LABELS[np.concatenate([order(0, epoch, LABELS, 11, "balanced") for epoch in range(300)])]
    assert abs((labels_NB == 2).mean(axis=0) - 14 / 23).max() < 0.1


@pytest.mark.parametrize("size", [0, 24])
def test_a_batch_that_cannot_be_filled_is_an_error_of_one_line(size):
    """Otherwise the run would have no steps and give no message."""
    with pytest.raises(ValueError, match=rf"^batch.size: got {size}; .* 23 images, allowed is 1 to 23$"):
        order(0, 0, LABELS, size)


def test_an_unknown_kind_is_an_error_that_lists_the_known_ones():
    """Otherwise a typing error would silently train in another order."""
    with pytest.raises(ValueError, match=r"^batch.sampler: got 'balance'; allowed are uniform, balanced$"):
        order(0, 0, LABELS, 4, "balance")
