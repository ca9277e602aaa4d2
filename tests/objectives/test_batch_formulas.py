"""The objectives of a whole batch against slow loops of their formulas over lists of floats, and their invariances."""

import itertools
import math
from statistics import fmean, pvariance, variance

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coupled.objectives import barlow_twins, l_c, l_nc, spectral, tcr, vicreg, vicreg_ctr, vicreg_exp

Matrix = list[list[float]]  # rows are images


def columns(rows: Matrix) -> Matrix:
    return [list(column) for column in zip(*rows, strict=True)]


def dot(x: list[float], y: list[float]) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True))


def covariances(rows: Matrix) -> Matrix:
    centred = [[a - fmean(column) for a in column] for column in columns(rows)]
    return [[dot(x, y) / (len(rows) - 1) for y in centred] for x in centred]


def hinge(rows: Matrix) -> float:
    return fmean(max(0.0, 1 - math.sqrt(variance(column) + 1e-4)) for column in columns(rows))


def squared_distance(one: Matrix, other: Matrix) -> float:
    return fmean((a - b) ** 2 for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def vicreg_loop(one: Matrix, other: Matrix, invariance=25.0, variance=25.0, covariance=1.0) -> float:
    squares = [
        sum(c**2 for i, row in enumerate(covariances(x)) for j, c in enumerate(row) if i != j) / len(x[0])
        for x in (one, other)
    ]
    return (
        invariance * squared_distance(one, other)
        + variance * (hinge(one) + hinge(other)) / 2
        + covariance * sum(squares)
    )


def log_sum_exps(rows: Matrix, tau: float) -> float:
    return fmean(
        math.log(sum(math.exp(c / tau) for j, c in enumerate(row) if j != i)) for i, row in enumerate(covariances(rows))
    )


def vicreg_exp_loop(
    one: Matrix, other: Matrix, invariance=25.0, variance=25.0, covariance=1.0, covariance_temperature=0.5, turn=list
) -> float:
    alike = sum(log_sum_exps(turn(x), covariance_temperature) for x in (one, other))
    low = (hinge(turn(one)) + hinge(turn(other))) / 2
    return invariance * squared_distance(one, other) + variance * low + covariance * alike


def vicreg_ctr_loop(one: Matrix, other: Matrix, **options: float) -> float:
    return vicreg_exp_loop(one, other, **options, turn=columns)


def tcr_loop(one: Matrix, other: Matrix, invariance=20.0, eps_squared=0.2) -> float:
    """By the images' side of the determinant: det(I + a Z Z^T) = det(I + a Z^T Z)."""
    rates = []
    for x in (one, other):
        factor = len(x[0]) / (len(x) * eps_squared)
        gram = [[(i == j) + factor * dot(a, b) for j, b in enumerate(x)] for i, a in enumerate(x)]
        rates.append(0.5 * np.linalg.slogdet(np.array(gram)).logabsdet)
    return invariance * fmean(1 - dot(a, b) for a, b in zip(one, other, strict=True)) - fmean(rates)


def apart_loop(one: Matrix, other: Matrix, turn=list) -> float:
    return fmean(
        sum(dot(a, b) ** 2 for i, a in enumerate(turn(x)) for j, b in enumerate(turn(x)) if i != j)
        for x in (one, other)
    )


def barlow_twins_loop(one: Matrix, other: Matrix, redundancy=0.0051) -> float:
    left, right = (
        [[(a - fmean(column)) / math.sqrt(pvariance(column) + 1e-5) for a in column] for column in columns(rows)]
        for rows in (one, other)
    )
    correlations = [[dot(x, y) / len(one) for y in right] for x in left]
    return sum(
        (1 - c) ** 2 if i == j else redundancy * c**2 for i, row in enumerate(correlations) for j, c in enumerate(row)
    )


OTHERS = {"invariance": 1.0, "variance": 2.0, "covariance": 3.0, "covariance_temperature": 1.5}
CASES = {
    "vicreg": (vicreg.vicreg, {}, vicreg_loop, "unnormalised"),
    "vicreg, other weights": (
        vicreg.vicreg,
        {"invariance": 1.0, "variance": 2.0, "covariance": 3.0},
        vicreg_loop,
        "unnormalised",
    ),
    "barlow_twins": (barlow_twins.barlow_twins, {}, barlow_twins_loop, "unnormalised"),
    "barlow_twins, other weight": (barlow_twins.barlow_twins, {"redundancy": 0.5}, barlow_twins_loop, "unnormalised"),
    "vicreg_exp": (vicreg_exp.vicreg_exp, {}, vicreg_exp_loop, "unnormalised"),
    "vicreg_exp, others": (vicreg_exp.vicreg_exp, OTHERS, vicreg_exp_loop, "unnormalised"),
    "vicreg_ctr": (vicreg_ctr.vicreg_ctr, {}, vicreg_ctr_loop, "unnormalised"),
    "vicreg_ctr, others": (vicreg_ctr.vicreg_ctr, OTHERS, vicreg_ctr_loop, "unnormalised"),
    "tcr": (tcr.tcr, {}, tcr_loop, "projection"),
    "tcr, others": (tcr.tcr, {"invariance": 3.0, "eps_squared": 0.7}, tcr_loop, "projection"),
    "l_c": (l_c.l_c, {}, apart_loop, "unnormalised"),
    "l_nc": (l_nc.l_nc, {}, lambda one, other: apart_loop(one, other, columns), "unnormalised"),
}


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_an_objective_of_the_batch_equals_the_loops_of_its_formula(random_outputs, whole_batch, name, views):
    """A wrong mean, a wrong N - 1, the diagonal left in: the arm would train another objective than its name says."""
    objective, options, loop, output = CASES[name]
    outputs = random_outputs(views=views)
    losses = [loop(*pair, **options) for pair in itertools.combinations(outputs[output].tolist(), 2)]
    loss = objective(whole_batch(outputs, [0, 1, 0, 2, 1, 0]), **options)
    assert loss.mean.item() == pytest.approx(fmean(losses), rel=1e-12)
    assert (loss.counted, loss.skipped) == (6 * views, 0)


@pytest.mark.parametrize("views", [2, 3])
def test_spectral_equals_the_loops_of_its_formula(random_outputs, whole_batch, views):
    """A positive among the negatives, or an anchor with itself, is another graph of views."""
    outputs = random_outputs(views=views)
    rows = [(image, z) for view in outputs["unnormalised"].tolist() for image, z in enumerate(view)]
    losses = []
    for i, (image, z) in enumerate(rows):
        positives = [dot(z, w) for j, (same, w) in enumerate(rows) if same == image and j != i]
        negatives = [dot(z, w) ** 2 for other, w in rows if other != image]
        losses.append(fmean(negatives) - 2 * fmean(positives))
    loss = spectral.spectral(whole_batch(outputs, [0, 1, 0, 2, 1, 0]))
    assert loss.mean.item() == pytest.approx(fmean(losses), rel=1e-12)
    assert (loss.counted, loss.skipped) == (6 * views, 0)


# The invariances of each objective; a change that is not listed is not tested.
ROTATED = {"spectral": spectral.spectral, "l_c": l_c.l_c}
SHIFTED = {
    "vicreg": vicreg.vicreg,
    "vicreg_exp": vicreg_exp.vicreg_exp,
    "barlow_twins": barlow_twins.barlow_twins,
}
TURNED = {**ROTATED, **SHIFTED, "l_nc": l_nc.l_nc}
PERMUTED = {**TURNED, "vicreg_ctr": vicreg_ctr.vicreg_ctr}


@pytest.mark.parametrize("name", ROTATED)
def test_a_rotation_of_the_projections_before_normalisation_does_not_matter(
    random_outputs, whole_batch, rotation, name
):
    """Only inner products of images may enter."""
    assert_unchanged(ROTATED[name], random_outputs, whole_batch, lambda z: z @ rotation)


@pytest.mark.parametrize("name", sorted(set(PERMUTED) - set(ROTATED)))
def test_a_rotation_changes_an_objective_of_dimensions(random_outputs, whole_batch, rotation, name):
    """These choose their axes; one that did not change would not look at single dimensions."""
    with pytest.raises(AssertionError):
        assert_unchanged(PERMUTED[name], random_outputs, whole_batch, lambda z: z @ rotation)


@pytest.mark.parametrize("name", PERMUTED)
def test_the_order_of_the_dimensions_does_not_matter(random_outputs, whole_batch, name):
    """All dimensions are alike."""
    order = torch.tensor([3, 0, 4, 1, 2])
    assert_unchanged(PERMUTED[name], random_outputs, whole_batch, lambda z: z[..., order])


@pytest.mark.parametrize("name", sorted(set(TURNED) - {"vicreg_exp"}))
def test_the_signs_of_the_dimensions_do_not_matter(random_outputs, whole_batch, name):
    """A square does not see them; an exponential of a covariance does."""
    signs = torch.tensor([1, -1, -1, 1, 1])
    assert_unchanged(TURNED[name], random_outputs, whole_batch, lambda z: signs * z)


@pytest.mark.parametrize("name", SHIFTED)
def test_the_mean_of_the_batch_does_not_matter(random_outputs, whole_batch, name):
    """A covariance is of centred dimensions."""
    assert_unchanged(SHIFTED[name], random_outputs, whole_batch, lambda z: z + torch.arange(5))


def test_the_mean_of_an_image_does_not_matter_to_vicreg_ctr_where_its_views_share_it(random_outputs, whole_batch):
    """There an image is centred as a dimension is in VICReg."""
    shift = torch.arange(6).view(1, 6, 1)
    assert_unchanged(vicreg_ctr.vicreg_ctr, random_outputs, whole_batch, lambda z: z + shift)


def test_the_scale_of_a_dimension_does_not_matter_to_barlow_twins(random_outputs, whole_batch):
    """It is brought to variance 1; what is added to the variance is all that can be seen."""
    scales = torch.tensor([1.0, 2.0, 5.0, 10.0, 3.0])
    assert_unchanged(barlow_twins.barlow_twins, random_outputs, whole_batch, lambda z: scales * z, rtol=1e-5)


def assert_unchanged(objective, random_outputs, whole_batch, change, rtol=1e-12):
    """The loss of the projections before normalisation is the same after `change`."""
    outputs = random_outputs()
    changed = outputs | {"unnormalised": change(outputs["unnormalised"])}
    losses = [objective(whole_batch(each, [0, 1, 0, 2, 1, 0])).mean for each in (outputs, changed)]
    torch.testing.assert_close(*losses, rtol=rtol, atol=0)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 10_000), st.sampled_from([1e-3, 1.0, 1e3]))
@settings(max_examples=60, deadline=None)
def test_the_criteria_are_dual(images, width, seed, scale):
    """L_nc + sum_j |row_j|^4 = L_c + sum_i |column_i|^4 for any matrix (arXiv 2206.02574, theorem 3.3).

    On it rests every comparison of contrast of images with contrast of dimensions.
    """
    x_NP = scale * torch.randn(images, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    dimensions, of_images = (x_NP.norm(dim=dim).pow(4).sum() for dim in (0, 1))
    sides = l_nc.criterion(x_NP) + dimensions, l_c.criterion(x_NP) + of_images
    torch.testing.assert_close(*sides, rtol=1e-12, atol=0)


def test_doubly_normalised_the_criteria_differ_by_a_constant():
    """All entries 1 or -1: rows and columns of equal norms. The paper's case, where the criteria have one gradient."""
    signs = torch.randint(0, 2, (8, 4), generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    difference = l_nc.criterion(signs) - l_c.criterion(signs)
    assert difference.item() == 8 * 4**2 - 4 * 8**2


def test_vicreg_ctr_is_vicreg_exp_of_the_transposed_batch(random_outputs, whole_batch):
    """Only images and dimensions are exchanged."""
    z_VNP = random_outputs()["unnormalised"]
    turned = whole_batch({"unnormalised": z_VNP.transpose(1, 2)}, [0] * 5)
    ctr = vicreg_ctr.vicreg_ctr(whole_batch({"unnormalised": z_VNP}, [0] * 6)).mean
    torch.testing.assert_close(ctr, vicreg_exp.vicreg_exp(turned).mean, rtol=1e-12, atol=0)


def test_the_coding_rate_is_greatest_for_orthogonal_images_and_least_for_equal_ones(random_outputs, whole_batch):
    """Collapse has the highest loss of all batches, whatever the two views have in common."""
    width = 5
    spread = torch.eye(width, dtype=torch.float64).expand(2, width, width)
    equal = torch.zeros_like(spread)
    equal[..., 0] = 1
    random = random_outputs(images=width)["projection"][:1].expand(2, width, width)
    losses = [tcr.tcr(whole_batch({"projection": each}, [0] * width)).mean.item() for each in (spread, random, equal)]
    assert losses == sorted(losses)
    assert losses[0] == pytest.approx(-width / 2 * math.log(1 + 1 / 0.2), rel=1e-12)
    assert losses[2] == pytest.approx(-math.log(1 + width / 0.2) / 2, rel=1e-12)


@pytest.mark.parametrize("name", ["vicreg", "barlow_twins"])
def test_collapse_costs_what_the_formula_says(whole_batch, name):
    """All images alike is the failure of these objectives: its loss must be high and finite, with a finite gradient."""
    alike = torch.full((2, 6, 5), 0.7, dtype=torch.float64, requires_grad=True)
    loss = SHIFTED[name](whole_batch({"unnormalised": alike}, [0] * 6)).mean
    assert loss.item() == pytest.approx({"vicreg": 25 * 0.99, "barlow_twins": 5}[name], rel=1e-9)
    assert torch.autograd.grad(loss, alike)[0].isfinite().all()


def test_the_least_loss_of_barlow_twins_is_reached(whole_batch):
    """Equal views, uncorrelated dimensions: 0, but for what is added to the variance."""
    signs = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    assert barlow_twins.barlow_twins(whole_batch({"unnormalised": torch.stack([signs] * 2)}, [0] * 4)).mean < 1e-8
