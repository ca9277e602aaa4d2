"""`margin_softmax` and its classifier of cosines: loops of the formula, and CosFace of a library."""

import math
from statistics import fmean

import pytest
import torch
from pytorch_metric_learning.losses import CosFaceLoss, NormalizedSoftmaxLoss
from torch import nn

from coupled.models.heads import build_head
from coupled.objectives import Head, Inputs, margin_softmax

LABELS = [0, 1, 0, 2, 1, 0]


@pytest.mark.parametrize(("margin", "scale"), [(0.35, 64.0), (0.0, 1.0), (0.5, 4.0)])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_margin_softmax_equals_the_double_loop_of_its_formula(random_outputs, whole_batch, views, margin, scale):
    """The margin at the wrong class, or outside the scale, is another loss."""
    outputs = random_outputs(views=views)
    losses = []
    for view in outputs["logits"].tolist():
        for cosines, label in zip(view, LABELS, strict=True):
            scores = [scale * (c - margin * (k == label)) for k, c in enumerate(cosines)]
            most = max(scores)
            losses.append(most + math.log(sum(math.exp(x - most) for x in scores)) - scores[label])
    loss = margin_softmax.margin_softmax(whole_batch(outputs, LABELS), margin=margin, scale=scale)
    assert loss.mean.item() == pytest.approx(fmean(losses), abs=1e-11, rel=0)
    assert (loss.counted, loss.skipped) == (6 * views, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_classifier_computes_cosines_whatever_the_lengths(dtype):
    """Under autocast, too: 0.35 of a scale of 64 is lost in the three digits of bfloat16."""
    head = build_head(Head("cosine", "embedding", "logits"), 5, 4).double()
    features = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.cosine_similarity(features[..., None, :], head.weight, dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        cosines = head(3 * features)
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-12)
    assert [name for name, _ in head.named_parameters()] == ["weight"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head.float()(features.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("margin", [0.35, 0.0])
def test_margin_softmax_agrees_with_pytorch_metric_learning(margin):
    """Value, and gradients of features and classifier: CosFace, and without margin the normalised softmax."""
    features = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    head = build_head(Head("cosine", "embedding", "logits"), 5, 3).double()
    scale = 16.0
    theirs = (
        CosFaceLoss(3, 5, margin=margin, scale=scale) if margin else NormalizedSoftmaxLoss(3, 5, temperature=1 / scale)
    )
    theirs.W = nn.Parameter(head.weight.detach().T.clone())
    labels = torch.tensor(LABELS)
    inputs = Inputs({"logits": head(features)}, {}, labels, labels)
    losses = (
        margin_softmax.margin_softmax(inputs, margin=margin, scale=scale).mean,
        theirs(features.flatten(0, 1), labels.repeat(2)),
    )
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)
    (of_features, of_rows), (their_features, their_rows) = (
        torch.autograd.grad(loss, (features, weight))
        for loss, weight in zip(losses, (head.weight, theirs.W), strict=True)
    )
    torch.testing.assert_close(of_features, their_features, rtol=0, atol=1e-12)
    torch.testing.assert_close(of_rows, their_rows.T, rtol=0, atol=1e-12)


def test_a_larger_margin_costs_more(random_outputs, whole_batch):
    """A margin of the wrong sign would make the task easier."""
    batch = whole_batch(random_outputs(), LABELS)
    losses = [margin_softmax.margin_softmax(batch, margin=margin, scale=4.0).mean for margin in (0.0, 0.2, 0.4)]
    assert losses == sorted(losses)


@pytest.mark.parametrize("source", ["projection", "embedding"])
def test_margin_softmax_asks_for_a_classifier_of_cosines(source):
    """A classifier with biases and free lengths would have no margin of a fixed size."""
    (head,) = margin_softmax.needs(input=source).heads.values()
    assert (head.kind, head.input, head.output, head.per_class) == ("cosine", source, "logits", True)
