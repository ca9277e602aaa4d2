"""Objectives that choose among the images of a class: the choice written out as a walk, and all triplets as loops."""

import math
from statistics import fmean

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import NTXentLoss, TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer

from coupled.config.registry import find_objective
from coupled.objectives import Inputs, n_pairs, nt_xent, supcon, triplet

LABELS = [0, 1, 0, 2, 1, 0, 0]
TAU = 0.5


def walk(i: int, images: int, views: int) -> list[int]:
    """All rows but i's image's: from image to image, after the last the first; at each from view to view likewise."""
    view, image = divmod(i, images)
    ahead = [(image + step) % images for step in range(1, images)]
    return [(view + turn) % views * images + other for other in ahead for turn in range(views)]


def own_views(i: int, images: int, views: int) -> list[int]:
    view, image = divmod(i, images)
    return [(view + turn) % views * images + image for turn in range(1, views)]


def cosines(outputs) -> list[list[float]]:
    rows = outputs["projection"].flatten(0, 1).tolist()
    return [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]


@pytest.mark.parametrize("variant", ["out", "in"])
@pytest.mark.parametrize("positives", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_supcon_uses_the_first_positives_in_cyclic_order(random_outputs, whole_batch, views, positives, variant):
    """Its own views, then the next images of its class: another choice would be another experiment, and one that
    differs between processes would be none.
    """
    outputs = random_outputs(images=7, views=views)
    s, losses = cosines(outputs), []
    for i in range(7 * views):
        order = [*own_views(i, 7, views), *walk(i, 7, views)]
        chosen = [a for a in order if LABELS[a % 7] == LABELS[i % 7]][:positives]
        if chosen:
            terms = [math.exp(s[i][p] / TAU) for p in chosen]
            pull = fmean(map(math.log, terms)) if variant == "out" else math.log(fmean(terms))
            losses.append(math.log(sum(math.exp(s[i][a] / TAU) for a in order)) - pull)
    loss = supcon.supcon(whole_batch(outputs, LABELS), temperature=TAU, variant=variant, num_positives=positives)
    assert loss.mean.item() == pytest.approx(fmean(losses), abs=1e-12, rel=0)
    assert (loss.counted, loss.skipped) == (len(losses), 7 * views - len(losses))


def test_supcon_with_one_positive_is_nt_xent_and_with_many_is_supcon(random_outputs, whole_batch):
    """The ablation of the number of positives goes from one to the other."""
    batch = whole_batch(random_outputs(images=7), LABELS)
    ends = {1: nt_xent.nt_xent(batch, temperature=TAU), 7: supcon.supcon(batch, temperature=TAU)}
    for positives, end in ends.items():
        found = supcon.supcon(batch, temperature=TAU, num_positives=positives).mean
        torch.testing.assert_close(found, end.mean, rtol=0, atol=1e-12)


def pairs_of(views: int) -> tuple[list[int], list[int]]:
    """Anchors and their positives: the first of the class on the walk, else another view of the anchor's image."""
    anchors, positives = [], []
    for i in range(7 * views):
        candidates = [*walk(i, 7, views), *own_views(i, 7, views)]
        same = [a for a in candidates if LABELS[a % 7] == LABELS[i % 7]]
        if same:
            anchors.append(i)
            positives.append(same[0])
    return anchors, positives


@pytest.mark.parametrize("views", [1, 2, 3])
def test_n_pairs_equals_the_loop_of_its_formula(random_outputs, whole_batch, views):
    """A second positive in the denominator would push the anchor's own class away."""
    outputs = random_outputs(images=7, views=views)
    s, losses = cosines(outputs), []
    anchors, positives = pairs_of(views)
    for i, p in zip(anchors, positives, strict=True):
        others = [math.exp(s[i][a] / TAU) for a in range(7 * views) if LABELS[a % 7] != LABELS[i % 7]]
        losses.append(math.log(math.exp(s[i][p] / TAU) + sum(others)) - s[i][p] / TAU)
    loss = n_pairs.n_pairs(whole_batch(outputs, LABELS), temperature=TAU)
    assert loss.mean.item() == pytest.approx(fmean(losses), abs=1e-12, rel=0)
    assert (loss.counted, loss.skipped) == (len(losses), 7 * views - len(losses))


def test_n_pairs_agrees_with_pytorch_metric_learning(whole_batch):
    """Their NT-Xent given the same pairs; value and gradient for vectors not yet of unit norm."""
    vectors_VBP = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    labels_A = torch.tensor(LABELS * 2)
    negatives = (labels_A[:, None] != labels_A).nonzero(as_tuple=True)
    pairs = (*map(torch.tensor, pairs_of(2)), *negatives)
    theirs = NTXentLoss(temperature=TAU)(vectors_VBP.flatten(0, 1), indices_tuple=pairs)
    batch = whole_batch({"projection": F.normalize(vectors_VBP, dim=-1)}, LABELS)
    agree(n_pairs.n_pairs(batch, temperature=TAU).mean, theirs, vectors_VBP)


def test_n_pairs_is_nt_xent_when_all_labels_differ(random_outputs, whole_batch):
    """The only positive is then the other view."""
    batch = whole_batch(random_outputs(), range(6))
    losses = [objective(batch, temperature=TAU).mean for objective in (n_pairs.n_pairs, nt_xent.nt_xent)]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("positives", [1, 3])
def test_positives_do_not_depend_on_the_world_size(random_outputs, whole_batch, positives, world_size):
    """The losses of the anchors are bit-identical for every world size."""
    outputs, labels = random_outputs(images=8), torch.tensor([0, 0, 0, 1, 1, 0, 0, 1])
    whole = supcon.per_anchor(whole_batch(outputs, labels), temperature=TAU, num_positives=positives).losses_A.view(
        2, 8
    )
    size = 8 // world_size
    for first in range(0, 8, size):
        own = {"projection": outputs["projection"][:, first : first + size]}
        cut = Inputs(own, outputs, labels[first : first + size], labels, first)
        found = supcon.per_anchor(cut, temperature=TAU, num_positives=positives).losses_A.view(2, size)
        torch.testing.assert_close(found, whole[:, first : first + size], rtol=0, atol=1e-12)


def triplet_losses(outputs, labels, margin: float, mining: str) -> list[float]:
    """Of each anchor that has a positive and a negative, by squared distances."""
    rows, images = outputs["projection"].flatten(0, 1).tolist(), len(labels)
    label = [labels[a % images] for a in range(len(rows))]
    losses = []
    for i, z in enumerate(rows):
        squared = [sum((a - b) ** 2 for a, b in zip(z, w, strict=True)) for w in rows]
        positives = [squared[p] for p in range(len(rows)) if label[p] == label[i] and p != i]
        negatives = [squared[n] for n in range(len(rows)) if label[n] != label[i]]
        if not positives or not negatives:
            continue
        hinges = []
        for p in positives:
            taken = negatives
            if mining == "semi_hard":
                farther = [n for n in negatives if n > p]
                taken = [min(farther) if farther else max(negatives)]
            hinges.append(fmean(max(0.0, p - n + margin) for n in taken))
        losses.append(fmean(hinges))
    return losses


@pytest.mark.parametrize("mining", ["all", "semi_hard"])
@pytest.mark.parametrize("margin", [0.05, 0.2, 3.0, 10.0])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_triplet_equals_the_loops_of_its_formula(random_outputs, whole_batch, views, margin, mining):
    """Counting instead of forming triplets must not lose or double one, whether few or all are within the margin."""
    outputs = random_outputs(images=7, views=views)
    expected = triplet_losses(outputs, LABELS, margin, mining)
    loss = triplet.triplet(whole_batch(outputs, LABELS), margin=margin, mining=mining)
    assert loss.mean.item() == pytest.approx(fmean(expected), abs=1e-12, rel=0)
    assert (loss.counted, loss.skipped) == (len(expected), 7 * views - len(expected))


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_all_triplets_agree_with_pytorch_metric_learning(whole_batch, margin):
    """Value and gradient; classes of equal size, because there the mean is over all triplets, here over anchors."""
    vectors_VBP = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    theirs = TripletMarginLoss(margin=margin, distance=LpDistance(power=2), reducer=MeanReducer())
    batch = whole_batch({"projection": F.normalize(vectors_VBP, dim=-1)}, labels)
    agree(triplet.triplet(batch, margin=margin).mean, theirs(vectors_VBP.flatten(0, 1), labels.repeat(2)), vectors_VBP)


def agree(ours, theirs, vectors_VBP):
    """Value and gradient are the same to 1e-12."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(loss, vectors_VBP, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mining", ["all", "semi_hard", "batch_hard"])
def test_triplet_loss_is_the_margin_at_collapse_and_zero_for_separated_classes(whole_batch, mining):
    """With no semi-hard triplet in a collapsed batch its loss would be 0, and collapse would be invisible."""
    alike = torch.zeros(2, 6, 3, dtype=torch.float64)
    alike[..., 0] = 1
    apart = F.one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3).double().expand(2, 6, 3)
    for projections, expected in ((alike, 0.2), (apart, 0.0)):
        loss = triplet.triplet(whole_batch({"projection": projections}, [0, 1, 2, 0, 1, 2]), mining=mining)
        assert loss.mean.item() == pytest.approx(expected, abs=1e-12)
        assert (loss.counted, loss.skipped) == (12, 0)


@pytest.mark.parametrize(("objective", "options"), [(triplet.triplet, {}), (n_pairs.n_pairs, {"temperature": TAU})])
@pytest.mark.parametrize("labels", [[0] * 3, [0, 1, 2]], ids=["one class", "each its own"])
def test_an_anchor_without_positive_or_negative_is_left_out(random_outputs, whole_batch, objective, options, labels):
    """Such an anchor must give neither a zero in the mean nor a NaN in the gradient."""
    outputs = random_outputs(images=3, views=1)
    outputs["projection"].requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        loss = objective(whole_batch(outputs, labels), **options)
        gradient = torch.autograd.grad(loss.mean, outputs["projection"])[0]
    assert (loss.mean, loss.counted, loss.skipped) == (0, 0, 3)
    assert not gradient.any()


@pytest.mark.parametrize("positives", [0, -3])
def test_a_number_of_positives_below_one_is_refused_in_one_line(positives):
    """No positive leaves no anchor."""
    with pytest.raises(
        ValueError, match=rf"^num_positives: {positives} is not allowed; give a number of at least 1, or null"
    ):
        supcon.check(temperature=TAU, num_positives=positives)


@pytest.mark.parametrize("positives", [True, "3", 2.5])
def test_a_number_of_positives_that_is_no_integer_is_refused(positives):
    """`positives: true` would be read as 1."""
    with pytest.raises(ValueError, match=r"^arms\.x\.num_positives: got .*; allowed are whole numbers"):
        find_objective("x", "supcon", {"num_positives": positives}, TAU)
    assert find_objective("x", "supcon", {"num_positives": None}, TAU).options["num_positives"] is None


def test_a_triplet_exactly_at_the_margin_costs_nothing(whole_batch):
    """Cosine 1/2 is squared distance 1. Counted on one side of the sum only, such a triplet would cost half."""
    two = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64).expand(2, 2, 2)
    assert triplet.per_anchor(whole_batch({"projection": two}, [0, 1]), margin=1.0).losses_A[0] == 0
