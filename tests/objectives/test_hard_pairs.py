"""Objectives that weigh or choose pairs by their similarity: loops of their formulas, libraries, special cases.

`dclw`, `hard_negative`, `hadsell` and `triplet` with batch-hard mining.
"""

import math
from statistics import fmean

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss, TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import DoNothingReducer, MeanReducer

from coupled.config.registry import find_objective
from coupled.objectives import dcl, dclw, hadsell, hard_negative, nt_xent, triplet

LABELS = [0, 1, 0, 2, 1, 0]
IMAGES = len(LABELS)
each_number_of_views = pytest.mark.parametrize("views", [2, 3])


def cosines(outputs) -> list[list[float]]:
    rows = outputs["projection"].flatten(0, 1).tolist()
    return [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]


def partners(i: int, rows: int) -> tuple[list[int], list[int]]:
    """The other views of i's image, and the views of all other images."""
    others = [a for a in range(rows) if a != i]
    return [a for a in others if a % IMAGES == i % IMAGES], [a for a in others if a % IMAGES != i % IMAGES]


def alike(ours, theirs, leaf) -> None:
    """Value and gradient are the same to 1e-12."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@pytest.fixture
def vectors() -> torch.Tensor:
    """Vectors not yet of unit norm, which libraries normalise."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, IMAGES, 5, generator=generator, dtype=torch.float64).requires_grad_()


@each_number_of_views
@pytest.mark.parametrize(("tau", "sigma"), [(0.1, 0.5), (1.0, 0.05), (0.5, 3.0)])
def test_dclw_equals_the_double_loop_of_its_formula(random_outputs, whole_batch, views, tau, sigma):
    """A mean of the weights over the wrong pairs would make them depend on the number of processes or views."""
    outputs, losses = random_outputs(views=views), []
    s, rows = cosines(outputs), range(views * IMAGES)
    average = fmean(math.exp(s[j][q] / sigma) for j in rows for q in partners(j, len(rows))[0])
    for i in rows:
        positives, negatives = partners(i, len(rows))
        pull = fmean((2 - math.exp(s[i][p] / sigma) / average) * s[i][p] / tau for p in positives)
        losses.append(math.log(sum(math.exp(s[i][a] / tau) for a in negatives)) - pull)
    loss = dclw.dclw(whole_batch(outputs, LABELS), temperature=tau, sigma=sigma)
    assert loss.mean.item() == pytest.approx(fmean(losses), abs=1e-11, rel=0)
    assert (loss.counted, loss.skipped) == (len(rows), 0)


@pytest.mark.parametrize("weight_gradient", [False, True])
def test_dclw_equals_two_sided_dcl_with_softmax_weights(whole_batch, vectors, weight_gradient):
    """The form of lightly's `DCLWLoss`: a softmax over the batch, one loss a view. lightly's weights are constants."""
    tau, sigma = 0.3, 0.5
    one, other = F.normalize(vectors, dim=-1)
    cosines_B = (one * other).sum(1) if weight_gradient else (one * other).sum(1).detach()
    weights_B = 2 - IMAGES * (cosines_B / sigma).softmax(0)
    sides = []
    for x, y in ((one, other), (other, one)):
        negatives = torch.cat([x @ x.T, x @ y.T], 1) / tau
        same = torch.eye(IMAGES, dtype=torch.bool).repeat(1, 2)
        pull = weights_B * (x * y).sum(1) / tau
        sides.append((negatives.masked_fill(same, -math.inf).logsumexp(1) - pull).mean())
    batch = whole_batch({"projection": F.normalize(vectors, dim=-1)}, LABELS)
    ours = dclw.dclw(batch, temperature=tau, sigma=sigma, weight_gradient=weight_gradient).mean
    alike(ours, sum(sides) / 2, vectors)


def test_dclw_with_equal_weights_is_dcl(random_outputs, whole_batch):
    """A large sigma: no positive is preferred."""
    batch = whole_batch(random_outputs(views=3), LABELS)
    losses = dclw.dclw(batch, temperature=0.5, sigma=1e6).mean, dcl.dcl(batch, temperature=0.5).mean
    torch.testing.assert_close(*losses, rtol=0, atol=1e-5)


@each_number_of_views
@pytest.mark.parametrize(("beta", "tau_plus"), [(1.0, 0.1), (0.0, 0.3), (2.5, 0.0), (0.5, 0.9)])
@pytest.mark.parametrize("tau", [0.2, 1.0])
def test_hard_negative_equals_the_double_loop_of_its_formula(random_outputs, whole_batch, views, beta, tau_plus, tau):
    """Also where the estimate is below its least value, as with a large `tau_plus`."""
    outputs, losses, at_least = random_outputs(views=views), [], 0
    s, rows = cosines(outputs), views * IMAGES
    for i in range(rows):
        positives, negatives = partners(i, rows)
        weights = [math.exp(beta * s[i][a] / tau) for a in negatives]
        hard = sum(w * math.exp(s[i][a] / tau) for w, a in zip(weights, negatives, strict=True)) / sum(weights)
        positive = [math.exp(s[i][p] / tau) for p in positives]
        debiased = (hard - tau_plus * fmean(positive)) / (1 - tau_plus)
        at_least += debiased < math.exp(-1 / tau)
        estimate = max(debiased, math.exp(-1 / tau))
        pull = fmean(s[i][p] / tau for p in positives)
        losses.append(math.log(sum(positive) + len(negatives) * estimate) - pull)
    loss = hard_negative.hard_negative(whole_batch(outputs, LABELS), temperature=tau, beta=beta, tau_plus=tau_plus)
    assert loss.mean.item() == pytest.approx(fmean(losses), abs=1e-12, rel=0)
    assert (loss.counted, loss.skipped) == (rows, 0)
    if tau_plus in (0.0, 0.9):
        assert (at_least > 0) == (tau_plus == 0.9)


@each_number_of_views
def test_hard_negative_without_beta_and_tau_plus_is_nt_xent(random_outputs, whole_batch, views):
    """It is NT-Xent with two changes; at 0 there is none."""
    batch = whole_batch(random_outputs(views=views), LABELS)
    ours = hard_negative.hard_negative(batch, temperature=0.1, beta=0.0, tau_plus=0.0).mean
    torch.testing.assert_close(ours, nt_xent.nt_xent(batch, temperature=0.1).mean, rtol=0, atol=1e-12)


def test_a_larger_beta_gives_more_gradient_to_the_hardest_negative(random_outputs, whole_batch):
    """Weights in the wrong direction would prefer the easy negatives."""
    outputs, shares = random_outputs(), []
    s = cosines(outputs)[0]
    negatives = sorted(partners(0, 2 * IMAGES)[1], key=lambda a: s[a])
    projections = outputs["projection"].requires_grad_()
    for beta in (0.0, 1.0, 4.0):
        options = {"temperature": 0.5, "beta": beta, "tau_plus": 0.0}
        loss = hard_negative.per_anchor(whole_batch(outputs, LABELS), **options).losses_A[0]
        slopes = torch.autograd.grad(loss, projections)[0].flatten(0, 1).norm(dim=1)
        shares.append((slopes[negatives[-1]] / slopes[negatives].sum()).item())
    assert shares == sorted(shares)
    assert shares[2] > shares[0] + 0.05


@pytest.mark.parametrize("tau_plus", [-0.1, 1.0, float("nan")])
def test_a_probability_out_of_range_is_refused_in_one_line(tau_plus):
    """1 would divide by 0."""
    with pytest.raises(ValueError, match=rf"^arms\.x\.tau_plus: {tau_plus} is not allowed|^arms\.x\.tau_plus: got nan"):
        find_objective("x", "hard_negative", {"tau_plus": tau_plus}, 0.5)


@pytest.mark.parametrize("margin", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_hadsell_equals_the_double_loop_of_its_formula(random_outputs, whole_batch, views, margin):
    """A pair with itself, or a mean over pairs of a kind instead of all pairs, is another balance of the two terms."""
    outputs, losses = random_outputs(views=views), []
    rows = outputs["projection"].flatten(0, 1).tolist()
    for i, z in enumerate(rows):
        terms = []
        for a, w in enumerate(rows):
            apart = math.dist(z, w)
            same = LABELS[i % IMAGES] == LABELS[a % IMAGES]
            terms += [] if a == i else [apart**2 / 2 if same else max(0.0, margin - apart) ** 2 / 2]
        losses.append(fmean(terms))
    loss = hadsell.hadsell(whole_batch(outputs, LABELS), margin=margin)
    assert loss.mean.item() == pytest.approx(fmean(losses), abs=1e-12, rel=0)
    assert (loss.counted, loss.skipped) == (len(rows), 0)


@pytest.mark.parametrize("margin", [0.5, 1.5])
def test_hadsell_is_half_the_squares_of_pytorch_metric_learnings_terms(whole_batch, vectors, margin):
    """Value and gradient; their contrastive loss has the same terms without the square."""
    theirs = ContrastiveLoss(neg_margin=margin, distance=LpDistance(), reducer=DoNothingReducer())
    terms = theirs(vectors.flatten(0, 1), torch.tensor(LABELS).repeat(2))
    pairs = 2 * IMAGES * (2 * IMAGES - 1)
    expected = sum(each["losses"].square().sum() for each in terms.values()) / 2 / pairs
    batch = whole_batch({"projection": F.normalize(vectors, dim=-1)}, LABELS)
    alike(hadsell.hadsell(batch, margin=margin).mean, expected, vectors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hadsell_at_collapse_costs_the_margin_and_has_a_finite_gradient(whole_batch, dtype):
    """The distance has no derivative at 0: without care the gradient is NaN. Here 6 of 11 rows have another class."""
    alike_VBP = torch.zeros(2, 6, 3, dtype=dtype)
    alike_VBP[..., 0] = 1
    alike_VBP.requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        loss = hadsell.hadsell(whole_batch({"projection": alike_VBP}, [0, 0, 0, 1, 1, 1])).mean
        gradient = torch.autograd.grad(loss, alike_VBP)[0]
    assert loss.item() == pytest.approx(6 / 11 / 2, rel=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("margin", [0.05, 0.2, 3.0])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_batch_hard_triplets_equal_the_loops_of_their_formula(random_outputs, whole_batch, views, margin):
    """The farthest positive and the nearest negative; exchanged, the easiest triplet would be trained."""
    outputs, losses = random_outputs(views=views), []
    rows = outputs["projection"].flatten(0, 1).tolist()
    for i, z in enumerate(rows):
        squared = [math.dist(z, w) ** 2 for w in rows]
        same = [a for a in range(len(rows)) if LABELS[a % IMAGES] == LABELS[i % IMAGES]]
        positives = [squared[a] for a in same if a != i]
        if positives:
            nearest = min(squared[a] for a in range(len(rows)) if a not in same)
            losses.append(max(0.0, max(positives) - nearest + margin))
    loss = triplet.triplet(whole_batch(outputs, LABELS), margin=margin, mining="batch_hard")
    assert loss.mean.item() == pytest.approx(fmean(losses), abs=1e-12, rel=0)
    assert (loss.counted, loss.skipped) == (len(losses), len(rows) - len(losses))


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_batch_hard_triplets_agree_with_pytorch_metric_learning(whole_batch, vectors, margin):
    """Value and gradient, with their miner and squared distances."""
    embeddings, labels_A = vectors.flatten(0, 1), torch.tensor(LABELS).repeat(2)
    mined = BatchHardMiner(distance=LpDistance(power=2))(embeddings, labels_A)
    theirs = TripletMarginLoss(margin=margin, distance=LpDistance(power=2), reducer=MeanReducer())
    batch = whole_batch({"projection": F.normalize(vectors, dim=-1)}, LABELS)
    ours = triplet.triplet(batch, margin=margin, mining="batch_hard").mean
    alike(ours, theirs(embeddings, labels_A, mined), vectors)
