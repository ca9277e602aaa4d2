"""Which labels are known: the share, nested sets, and their dependence on the seed alone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coupled.stream.known_labels import known_labels


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
