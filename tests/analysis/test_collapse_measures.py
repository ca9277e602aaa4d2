"""Collapse diagnostics on features with known answers, and against slow definitions."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from coupled.analysis.representations.collapse_measures import (
    TOP,
    alignment,
    lidar,
    of_predictor,
    of_rows,
    uniformity,
    verdict,
    with_reasons,
)
from coupled.analysis.representations.duality_measures import duality

AXES = torch.cat([torch.eye(6), -torch.eye(6)])  # 12 points that lie evenly


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_isotropic_features_have_the_known_values() -> None:
    """Spread 1 and equal eigenvalues; the lengths of rows do not affect the measures of directions."""
    values = of_rows(3 * AXES)
    assert values["spread", "unit_norm"] == pytest.approx(1, abs=1e-12)
    assert values["effective_rank", "centred"] == pytest.approx(6, abs=1e-9)
    pairs, opposite = math.comb(12, 2), 6
    expected = math.log((opposite * math.exp(-8) + (pairs - opposite) * math.exp(-4)) / pairs)
    assert values["uniformity", "t=2"] == pytest.approx(expected, abs=1e-12)
    for j in range(1, 7):
        assert values["eigenvalue", j] == pytest.approx(9 * 2 / 11)
        assert values["eigenvalue_share", j] == pytest.approx(1 / 6)
    assert ("eigenvalue", "7") not in values
    assert verdict(values) == ("no", "")


def test_rankme_and_lidar_equal_their_definitions() -> None:
    """With numpy, image by image; RankMe does not subtract the mean and LiDAR compares images with their views."""
    rows = random(30, 6) + 1
    shares = np.linalg.svd(rows.numpy(), compute_uv=False)
    shares = shares / shares.sum() + 1e-7
    found = of_rows(rows)["rankme", "uncentred"]
    assert found == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())), abs=1e-10)
    assert 1 < found < of_rows(rows)["effective_rank", "centred"]
    views = (rows[None] + 0.3 * random(3, 30, 6, seed=1) * torch.arange(1, 7)).numpy()
    within, between = 1e-4 * np.eye(6), np.zeros((6, 6))
    for n in range(30):
        centre = views[:, n].mean(0)
        between += np.outer(centre - views.mean((0, 1)), centre - views.mean((0, 1))) / 29
        within += sum(np.outer(view - centre, view - centre) for view in views[:, n]) / (30 * 2)
    ratios = np.linalg.eigvals(np.linalg.inv(within) @ between).real
    ratios = ratios / ratios.sum() + 1e-7
    expected = float(np.exp(-(ratios * np.log(ratios)).sum()))
    assert lidar(torch.tensor(views)) == {("lidar", "views=3"): pytest.approx(expected, abs=1e-9)}
    assert 1 < expected < 6


def test_rankme_and_lidar_of_collapsed_features_are_1_or_undefined() -> None:
    """One direction has rank 1; features that are all 0, or images that do not differ, have none."""
    line = random(40, 1) * torch.ones(1, 8)
    assert of_rows(line)["rankme", "uncentred"] == pytest.approx(1, abs=1e-4)
    assert of_rows(torch.zeros(9, 4))["rankme", "uncentred"].reason == "all values are 0"
    assert lidar(torch.ones(2, 9, 4))["lidar", "views=2"].reason == "all values are 0"
    assert lidar(random(1, 9, 4))["lidar", "views=1"].reason == "fewer than 2 views or images"


def test_collapsed_features_are_recognised() -> None:
    """One point, nearly one point, and a line, whose spread alone looks healthy; also far from the origin."""
    point = of_rows(torch.ones(9, 4))
    assert point["spread", "unit_norm"] == point["uniformity", "t=2"] == 0
    assert {reason for *_, reason in with_reasons(point)} == {"constant features"}
    assert verdict(point) == ("point", "spread 0; 1 is even, 0 is a single point")
    assert verdict(of_rows(torch.ones(9, 4) * 1000 + random(9, 4)))[0] == "point"
    line = of_rows(torch.tensor([[3.0], [-1.0]]).repeat(20, 1) * torch.ones(1, 8) + 0.01 * random(40, 8))
    assert line["spread", "unit_norm"] == pytest.approx(1, abs=1e-3)
    assert verdict(line)[0] == "line"
    assert "one direction" in verdict(line)[1]
    assert verdict(of_rows(random(40, 8))) == ("no", "")


def test_the_spread_equals_that_of_the_warning_during_training() -> None:
    """sqrt(P) times the root mean square of the coordinates' standard deviations; few digits of float32 are lost."""
    rows = torch.nn.functional.normalize(random(50, 5) + 2, dim=1)
    expected = math.sqrt(5) * math.sqrt(np.mean(rows.numpy().std(axis=0) ** 2))
    assert of_rows(7 * rows)["spread", "unit_norm"] == pytest.approx(expected, abs=1e-12)
    near = torch.nn.functional.normalize(torch.ones(50, 5, dtype=torch.float64) + 1e-9 * random(50, 5), dim=1)
    exact = math.sqrt(5) * math.sqrt(np.mean((near - near[0]).numpy().std(axis=0) ** 2))
    assert of_rows(near)["spread", "unit_norm"] == pytest.approx(exact, rel=1e-6)


def test_alignment_uniformity_and_spectrum_equal_slow_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops over pairs; strips of three rows give the same sum."""
    views = random(2, 10, 4)
    unit = views.numpy() / np.linalg.norm(views.numpy(), axis=2, keepdims=True)
    expected = np.mean([sum((a - b) ** 2) for a, b in zip(*unit, strict=True)])
    assert alignment(views)["alignment", "alpha=2"] == pytest.approx(expected, abs=1e-12)
    assert alignment(torch.stack([views[0], 5 * views[0]]))["alignment", "alpha=2"] == pytest.approx(0, abs=1e-12)
    pairs = [math.exp(-2 * sum((a - b) ** 2)) for i, a in enumerate(unit[0]) for b in unit[0][:i]]
    monkeypatch.setattr("coupled.analysis.representations.collapse_measures.BLOCK", 30)
    assert uniformity(torch.from_numpy(unit[0])) == pytest.approx(math.log(np.mean(pairs)), abs=1e-12)
    wide = random(40, TOP + 4)
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(wide.numpy().T)))[::-1]
    values = of_rows(wide)
    assert [values["eigenvalue", j + 1] for j in range(TOP)] == pytest.approx(eigenvalues[:TOP].tolist())
    assert values["eigenvalue_share", 2] == pytest.approx(eigenvalues[1] / eigenvalues.sum())
    assert ("eigenvalue", TOP + 1) not in values


def test_a_predictor_with_the_eigenvectors_of_its_inputs_is_aligned() -> None:
    """Diagonal in the same directions: cosine 1 (or -1), p_j on the diagonal; turned by an angle: its cosine."""
    turn, _ = torch.linalg.qr(random(3, 3))
    inputs = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)) @ turn.T
    weight = turn @ torch.diag(torch.tensor([0.5, -4.0, 0.0], dtype=torch.float64)) @ turn.T
    values = of_predictor(inputs, weight)
    assert [values["correlation_eigenvalue", j] for j in (1, 2, 3)] == pytest.approx([3, 4 / 3, 1 / 3])
    assert [values["predictor_along", j] for j in (1, 2, 3)] == pytest.approx([0.5, -4, 0], abs=1e-12)
    assert [values["predictor_singular_value", j] for j in (1, 2, 3)] == pytest.approx([4, 0.5, 0], abs=1e-12)
    assert [values["eigenspace_alignment", j] for j in (1, 2)] == pytest.approx([1, -1])
    assert values["asymmetry", "frobenius"] == pytest.approx(0, abs=1e-12)
    c, s = math.cos(0.3), math.sin(0.3)
    rotation = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
    turned = of_predictor(inputs, turn @ rotation @ turn.T)
    assert [turned["eigenspace_alignment", j] for j in (1, 2, 3)] == pytest.approx([c, c, 1])
    shear = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    sheared = of_predictor(inputs, turn @ shear @ turn.T)
    assert [sheared["eigenspace_alignment", j] for j in (1, 2, 3)] == pytest.approx([1, 1 / math.sqrt(5), 1])


def test_the_asymmetry_of_a_predictor_is_0_if_symmetric_and_2_if_antisymmetric() -> None:
    """A zero matrix has no value."""
    inputs, square = random(9, 4), random(4, 4, seed=1)
    assert of_predictor(inputs, square + square.T)["asymmetry", "frobenius"] == 0
    assert of_predictor(inputs, square - square.T)["asymmetry", "frobenius"] == pytest.approx(2)
    nothing = of_predictor(inputs, torch.zeros(4, 4))
    assert {metric for metric, *_ in with_reasons(nothing)} == {"asymmetry", "eigenspace_alignment"}
    assert {metric for metric, _ in of_predictor(inputs, None)} == {"correlation_eigenvalue"}


def test_the_criteria_are_those_of_the_objectives_and_their_difference_is_that_of_the_norms() -> None:
    """Against sums over all pairs of images and of dimensions, with numpy; the identity of theorem 3.3."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 7)) * rng.uniform(0.5, 2, size=(30, 1)) + 0.3
    found = duality(torch.from_numpy(rows).float())
    rows = rows.astype(np.float32).astype(np.float64)
    for variant, z in (("unnormalised", rows), ("unit_norm", rows / np.linalg.norm(rows, axis=1, keepdims=True))):
        pairs = {"l_c": z @ z.T, "l_nc": z.T @ z}
        for name, products in pairs.items():
            known = sum(products[i, j] ** 2 for i, j in np.ndindex(*products.shape) if i != j)
            assert found[name, variant] == pytest.approx(known, rel=1e-10)
        assert found["sample_norms", variant] == pytest.approx(sum(np.linalg.norm(z, axis=1) ** 4), rel=1e-12)
        assert found["dimension_norms", variant] == pytest.approx(sum(np.linalg.norm(z, axis=0) ** 4), rel=1e-12)
        sides = [("l_nc", "dimension_norms"), ("l_c", "sample_norms")]
        left, right = (sum(found[name, variant] for name in side) for side in sides)
        assert left == pytest.approx(right, rel=1e-12)
    norms = {"norm": np.linalg.norm(rows, axis=1), "dimension_norm": np.linalg.norm(rows, axis=0) / np.sqrt(30)}
    for name, known in norms.items():
        assert found[name, "unnormalised"] == pytest.approx(known.mean(), rel=1e-12)
        assert found[f"{name}_std", "unnormalised"] == pytest.approx(known.std(), rel=1e-10)


def test_orthogonal_images_have_no_sample_criterion_and_orthogonal_dimensions_no_dimension_criterion() -> None:
    """Both are 0 for a scaled orthogonal matrix; rows of zeros have criteria and norms of 0."""
    orthogonal = 3 * torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()).Q
    found = duality(orthogonal)
    assert found["l_c", "unnormalised"] == pytest.approx(0, abs=1e-10)
    assert found["l_nc", "unnormalised"] == pytest.approx(0, abs=1e-20)
    assert found["sample_norms", "unnormalised"] == pytest.approx(5 * 81)
    assert set(duality(torch.zeros(4, 3)).values()) == {0.0}
