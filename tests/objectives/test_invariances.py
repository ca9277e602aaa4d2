"""What must not change an objective: the order of images and views, and a rotation of all projections."""

from dataclasses import replace
from functools import partial

import pytest
import torch

LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def assert_same(objective, *batches):
    """All batches give the same mean to 1e-12."""
    first, *others = [objective(batch).mean for batch in batches]
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=1e-12)


def test_the_order_of_images_does_not_matter(random_outputs, whole_batch, objective):
    """A mask tied to the place in the batch instead of the image or label would see the order.

    No class has three images here: which of two others an objective takes may depend on the order.
    """
    outputs, order, labels = random_outputs(), torch.tensor([4, 2, 0, 5, 1, 3]), torch.tensor([0, 1, 0, 2, 1, 3])
    shuffled = {name: value[:, order] for name, value in outputs.items()}
    assert_same(objective, whole_batch(outputs, labels), whole_batch(shuffled, labels[order]))


def test_reversing_the_order_of_images_does_not_matter(random_outputs, whole_batch, objective):
    """For classes of any size: no image is the first."""
    outputs = random_outputs()
    turned = {name: value.roll(2, dims=1) for name, value in outputs.items()}
    assert_same(objective, whole_batch(outputs, LABELS), whole_batch(turned, LABELS.roll(2)))


def test_the_order_of_views_does_not_matter(random_outputs, whole_batch, chosen):
    """Every view is an anchor once; a loss of the first view only would see the exchange."""
    if chosen.options.get("asymmetric"):
        pytest.skip("its loss is that of the first view by this option")
    objective = partial(chosen.function, **chosen.options)
    outputs = random_outputs(views=3)
    turned = {name: value.roll(1, dims=0) for name, value in outputs.items()}
    assert_same(objective, whole_batch(outputs, LABELS), whole_batch(turned, LABELS))


def test_a_rotation_of_the_projections_does_not_matter(random_outputs, whole_batch, rotation, contrastive):
    """Only inner products may enter."""
    outputs = random_outputs()
    rotated = outputs | {"projection": outputs["projection"] @ rotation}
    assert_same(contrastive, whole_batch(outputs, LABELS), whole_batch(rotated, LABELS))


def test_the_names_of_the_classes_do_not_matter(random_outputs, whole_batch, contrastive):
    """Labels are compared, never counted with: class 0 is a class like any other."""
    outputs = random_outputs()
    assert_same(contrastive, whole_batch(outputs, LABELS), whole_batch(outputs, 1000 - 7 * LABELS))


def test_the_inputs_are_not_changed(random_outputs, whole_batch, objective):
    """Arms share tensors: an operation in place would reach the next arm."""
    inputs = whole_batch(random_outputs(), LABELS)
    kept = {name: value.clone() for name, value in inputs.outputs.items()}
    objective(replace(inputs))
    assert all(torch.equal(kept[name], value) for name, value in inputs.outputs.items())
