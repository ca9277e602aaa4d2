"""The labels that an objective sees: the share, noise, groups, nested sets, and their dependence on the seed alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coupled.objectives import Needs
from coupled.stream.known_labels import known_labels, label_groups, noisy_labels, seen_labels


@given(st.integers(0, 2**40), st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_known_images_of_a_smaller_share_are_a_subset_of_those_of_a_larger(seed, images, one, other):
    """The path from CL to NSCL adds labels; exchanged labels would be noise on it."""
    few, many = (known_labels(seed, images, share) for share in sorted((one, other)))
    assert not (few & ~many).any()
    assert int(few.sum()) == round(min(one, other) * images)


def test_no_label_and_every_label_are_the_ends():
    """The ends are DCL and NSCL."""
    assert not known_labels(0, 50, 0.0).any()
    assert known_labels(0, 50, 1.0).all()


def test_another_seed_knows_other_images_and_every_image_is_as_likely():
    """400 seeds: each image within five standard deviations of a binomial distribution."""
    counts = torch.stack([known_labels(seed, 40, 0.3) for seed in range(400)]).sum(0)
    assert (abs(counts - 120) < 5 * (400 * 0.3 * 0.7) ** 0.5).all()


LABELS_N = torch.arange(600) % 10


@given(st.integers(0, 2**40), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_less_noise_replaces_a_subset_of_the_labels_by_the_same_classes(seed, one, other):
    """Arms with different noise differ in the number of wrong labels, not in which ones."""
    few, many = (noisy_labels(LABELS_N, 10, share, seed) for share in sorted((one, other)))
    wrong = few != LABELS_N
    assert torch.equal(few[wrong], many[wrong])


@given(st.integers(0, 2**40), st.integers(2, 40), st.integers(1, 4), st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_groups_have_equal_sizes_and_few_groups_are_unions_of_many(seed, classes, factor, groups):
    """Coarser labels only merge: otherwise they would be other labels, not coarser ones."""
    if groups * factor > classes:
        return
    coarse_C, fine_C = label_groups(seed, classes, groups), label_groups(seed, classes, groups * factor)
    counts = torch.bincount(coarse_C, minlength=groups)
    assert int(counts.max() - counts.min()) <= 1
    for group in range(groups * factor):
        assert len(coarse_C[fine_C == group].unique()) == 1


def test_noise_comes_before_groups_and_the_share_comes_last():
    """Noise within a group changes nothing for the objective, and unknown stays unknown."""
    needs = Needs(("projection",), label_fraction=0.5, label_noise=0.3, label_groups=2)
    seen_N = seen_labels(LABELS_N, 10, 7, needs)
    known_N = known_labels(7, 600, 0.5)
    expected_N = label_groups(7, 10, 2)[noisy_labels(LABELS_N, 10, 0.3, 7)]
    assert torch.equal(seen_N[known_N], expected_N[known_N])
    assert (seen_N[~known_N] == -1).all()
    assert Needs(("projection",)).true_labels
    assert torch.equal(seen_labels(LABELS_N, 10, 7, Needs(("projection",))), LABELS_N)


def test_noise_needs_two_classes():
    """One class has no other class."""
    with pytest.raises(ValueError, match=r"^label_noise: got 0\.5; the training images have 1 classes, not 2 or more$"):
        seen_labels(LABELS_N * 0, 1, 0, Needs(("projection",), label_noise=0.5))
