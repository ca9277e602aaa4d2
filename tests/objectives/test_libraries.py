"""Objectives against independent libraries in float64; docs/reference/objectives.md quotes the tolerances."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss, VICRegLoss
from sklearn.metrics import log_loss
from torch import Tensor

from coupled.objectives import cross_entropy, dcl, nscl, nt_xent, supcon, vicreg

LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 3, 1])
IMAGES = torch.arange(len(LABELS))
each_temperature = pytest.mark.parametrize("tau", [0.07, 0.5, 1.0])


@pytest.fixture
def agree(whole_batch) -> Callable:
    """A function: ours and theirs give the same value and gradient for vectors not yet of unit norm, to 1e-12.

    The library normalises by itself, so the common variables are the vectors before.
    """
    vectors_VBP = torch.randn(2, len(LABELS), 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vectors_VBP.requires_grad_()

    def assert_agree(ours: Callable, theirs: Callable[[Tensor], Tensor]) -> None:
        outputs = {"projection": F.normalize(vectors_VBP, dim=-1), "unnormalised": vectors_VBP}
        values = ours(whole_batch(outputs, LABELS)).mean, theirs(vectors_VBP.flatten(0, 1))
        gradients = [torch.autograd.grad(value, vectors_VBP)[0] for value in values]
        torch.testing.assert_close(*values, rtol=0, atol=1e-12)
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)

    return assert_agree


@each_temperature
def test_nt_xent_agrees_with_pytorch_metric_learning(agree, tau):
    """There an image is a class of two views. A difference would mean that our NT-Xent is not SimCLR's."""
    theirs = NTXentLoss(temperature=tau)
    agree(lambda inputs: nt_xent.nt_xent(inputs, temperature=tau), lambda x: theirs(x, IMAGES.repeat(2)))


@each_temperature
def test_dcl_with_the_positive_agrees_with_pytorch_metric_learning(agree, tau):
    """What the authors trained under the name CL is NT-Xent; their numbers are compared with this switch."""
    theirs = NTXentLoss(temperature=tau)
    agree(
        lambda inputs: dcl.dcl(inputs, temperature=tau, positive_in_denominator=True),
        lambda x: theirs(x, IMAGES.repeat(2)),
    )


@each_temperature
def test_nscl_with_the_positive_agrees_with_pytorch_metric_learning(agree, tau):
    """Their NT-Xent takes the list of pairs: positives of the same image and negatives of other classes are NSCL."""
    images_A, labels_A = IMAGES.repeat(2), LABELS.repeat(2)
    positives = (images_A[:, None] == images_A) & ~torch.eye(len(images_A), dtype=torch.bool)
    negatives = labels_A[:, None] != labels_A
    pairs = (*positives.nonzero(as_tuple=True), *negatives.nonzero(as_tuple=True))
    theirs = NTXentLoss(temperature=tau)
    agree(
        lambda inputs: nscl.nscl(inputs, temperature=tau, positive_in_denominator=True),
        lambda x: theirs(x, indices_tuple=pairs),
    )


@each_temperature
def test_supcon_out_agrees_with_pytorch_metric_learning(agree, tau):
    """A difference would mean that the SCL arm is not the published SupCon."""
    theirs = SupConLoss(temperature=tau)
    agree(lambda inputs: supcon.supcon(inputs, temperature=tau), lambda x: theirs(x, LABELS.repeat(2)))


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 2.0, 3.0)])
def test_vicreg_agrees_with_pytorch_metric_learning(agree, weights):
    """The halves and the two covariances differ between write-ups: a difference is another balance of the terms."""
    invariance, variance, covariance = weights
    theirs = VICRegLoss(invariance_lambda=invariance, variance_mu=variance, covariance_v=covariance)
    agree(
        lambda inputs: vicreg.vicreg(inputs, invariance=invariance, variance=variance, covariance=covariance),
        lambda x: theirs(x[: len(LABELS)], ref_emb=x[len(LABELS) :]),
    )


def test_cross_entropy_agrees_with_scikit_learn(random_outputs, whole_batch):
    """A hidden temperature or label smoothing in the CE arm would show here."""
    outputs = random_outputs(images=len(LABELS))
    probabilities = outputs["logits"].flatten(0, 1).softmax(1).numpy()
    theirs = log_loss(LABELS.repeat(2).numpy(), probabilities, labels=range(4))
    assert cross_entropy.cross_entropy(whole_batch(outputs, LABELS)).mean.item() == pytest.approx(theirs, abs=1e-12)
