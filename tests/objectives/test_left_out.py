"""Anchors without negatives or positives: left out of the mean, counted, and never a NaN."""

import pytest
import torch

from coupled.objectives import Inputs, dcl, nscl, supcon
from coupled.objectives._anchors import contrast, mean_over_counted

ONE_CLASS, TWO_IN_CLASS = [5, 5, 5], [0, 0, 1]


def value_and_gradient(objective, whole_batch, outputs, labels, **options):
    """The loss and the gradient of its mean; anomaly detection refuses a NaN anywhere on the way back."""
    outputs["projection"].requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        loss = objective(whole_batch(outputs, labels), temperature=0.5, **options)
        return loss, torch.autograd.grad(loss.mean, outputs["projection"])[0]


@pytest.mark.parametrize("positive_in_denominator", [False, True])
@pytest.mark.parametrize(
    ("objective", "images", "labels"),
    [(nscl.nscl, 3, ONE_CLASS), (nscl.nscl, 1, [0]), (dcl.dcl, 1, [0])],
    ids=["nscl, one class", "nscl, one image", "dcl, one image"],
)
def test_without_any_negative_nothing_is_counted(
    random_outputs, whole_batch, objective, images, labels, positive_in_denominator
):
    """With the positive in the denominator the loss of such an anchor would be a silent zero, else log 0."""
    loss, gradient = value_and_gradient(
        objective,
        whole_batch,
        random_outputs(images=images),
        labels,
        positive_in_denominator=positive_in_denominator,
    )
    assert (loss.mean, loss.counted, loss.skipped) == (0, 0, 2 * images)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_an_image_alone_in_the_batch_is_left_out(random_outputs, chosen):
    """Its only other row is its positive: the loss would be 0 or NaN whatever the network does."""
    if not chosen.needs.gathered or chosen.needs.kept:
        pytest.skip("each anchor stands for itself, or has negatives of earlier batches")
    outputs, label = random_outputs(images=1), torch.tensor([0])
    leaves = [outputs[name].requires_grad_() for name in chosen.needs.outputs]
    with torch.autograd.set_detect_anomaly(True):
        loss = chosen.function(Inputs(outputs, outputs, label, label), **chosen.options)
        gradients = torch.autograd.grad(loss.mean, leaves, allow_unused=True)
    assert (loss.mean, loss.counted, loss.skipped) == (0, 0, 2)
    assert not any(gradient.any() for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("variant", ["out", "in"])
def test_supcon_leaves_out_an_anchor_without_positives(random_outputs, whole_batch, variant):
    """A single view of a class of one has no positive; a loss of 0 must not enter the mean."""
    outputs = random_outputs(images=3, views=1)
    loss, gradient = value_and_gradient(supcon.supcon, whole_batch, outputs, TWO_IN_CLASS, variant=variant)
    anchors = supcon.per_anchor(whole_batch(outputs, TWO_IN_CLASS), temperature=0.5, variant=variant)
    assert anchors.counted_A.tolist() == [True, True, False]
    assert (loss.counted, loss.skipped) == (2, 1)
    assert loss.mean.item() == pytest.approx(anchors.losses_A[:2].mean().item(), abs=1e-12)
    assert gradient.isfinite().all()


def test_negatives_of_other_processes_count(random_outputs):
    """Own images of one class have negatives as soon as the global batch has another class."""
    outputs, labels = random_outputs(images=4), torch.tensor([0, 0, 1, 0])
    own = {"projection": outputs["projection"][:, :2]}
    loss = nscl.nscl(Inputs(own, {"projection": outputs["projection"]}, labels[:2], labels), temperature=0.5)
    assert (loss.counted, loss.skipped) == (4, 0)


def test_an_anchor_without_negatives_does_not_affect_loss_or_gradient():
    """An anchor without negatives beside one with: the mean and the gradient are those of the other alone."""
    scores_AM = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    positives_AM = torch.tensor([[False, True, False, False]]).repeat(2, 1)
    negatives_AM = torch.tensor([[False, False, True, True], [False, False, False, False]])
    for positive_in_denominator in (False, True):
        both = mean_over_counted(
            contrast(scores_AM, positives_AM, negatives_AM, positive_in_denominator=positive_in_denominator)
        )
        one = mean_over_counted(
            contrast(scores_AM[:1], positives_AM[:1], negatives_AM[:1], positive_in_denominator=positive_in_denominator)
        )
        assert (both.counted, both.skipped) == (1, 1)
        assert torch.equal(both.mean, one.mean)
        assert torch.equal(*[torch.autograd.grad(loss.mean, scores_AM)[0] for loss in (both, one)])
