"""The bounds: values computed by hand or on a grid, limits, monotonicity, and that they bound what they should."""

from math import acos, cos, exp, inf, isinf, log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from coupled.analysis.theory.bound_formulas import (
    Scatter,
    alignment_floor,
    anchor_gap,
    documented_form,
    log_gradient_gap,
    log_similarity_distance,
    proposition_1,
    set_gap,
    sharp_alignment_floor,
    weight_distance,
)

positive = st.floats(1e-6, 1e3)
scatters = st.builds(Scatter, positive, positive, positive)


def naive(scatter: Scatter, m: int, a: np.ndarray, documented: bool) -> np.ndarray:
    """The paper's formula at many a, for two classes."""
    v, vs, vdir = scatter
    A = 2 + 2**1.5 / m
    second = a * 2 * sqrt(2) * v / m if documented else a / 4 * (2 / sqrt(m) * (vs + v) + v / m)
    return vdir / (0.5 - A / a) ** 2 + second


@pytest.mark.parametrize(("classes", "value"), [(10, 0.60), (100, 0.072), (1000, 0.0074)])
def test_the_closed_form_at_tau_1_equals_the_paper(classes: int, value: float) -> None:
    """The numbers of arXiv 2506.04411; at tau = 0.1 the same bound is vacuous."""
    assert set_gap(7, 7 * classes, 1.0) == pytest.approx(value, rel=0.01)
    assert set_gap(7, 7 * classes, 1.0) == pytest.approx(log(1 + exp(2) / (classes - 1)), rel=1e-12)
    assert set_gap(7, 7 * classes, 0.1) > 13


def test_the_bound_of_an_anchor_by_hand() -> None:
    """Six images, three of the class: log(1 + 2 e^4 / 3)."""
    assert anchor_gap(3, 6, 0.5) == pytest.approx(log(1 + 2 * exp(4) / 3), rel=1e-14)
    assert anchor_gap(1, 6, 0.5) == 0
    assert isinf(anchor_gap(6, 6, 0.5))
    assert isinf(set_gap(6, 6, 0.5))
    assert anchor_gap(3, 6, 1e-3) == pytest.approx(2000 + log(2 / 3))  # e^2000 is no float


@given(st.integers(2, 50), st.integers(51, 500), st.floats(0.05, 5))
def test_the_gap_bounds_grow_with_the_class_and_shrink_with_batch_and_temperature(n: int, batch: int, tau: float):
    for bound in (anchor_gap, set_gap):
        assert bound(n + 1, batch, tau) > bound(n, batch, tau)
        assert bound(n, batch + 1, tau) < bound(n, batch, tau)
        assert bound(n, batch, tau * 1.1) < bound(n, batch, tau)
    assert anchor_gap(n, batch, tau) < set_gap(n, batch, tau)


@given(scatters, st.integers(1, 500), st.booleans())
def test_the_few_shot_bound_is_the_minimum_over_a(scatter: Scatter, m: int, documented: bool) -> None:
    """No a of a fine grid gives a lower value, and the reported a gives the reported value."""
    found = (documented_form if documented else proposition_1)(scatter, 2, m)
    grid = np.maximum(5, 2 * (2 + 2**1.5 / m) * (1 + np.geomspace(1e-6, 1e6, 4001)))
    values = naive(scatter, m, grid, documented)
    assert values.min() * (1 + 1e-9) >= found.error
    assert values.min() == pytest.approx(found.error, rel=1e-3)
    assert naive(scatter, m, np.array([found.a]), documented)[0] == pytest.approx(found.error, rel=1e-6)


def slow_minimum(scatter: Scatter, m: int, documented: bool) -> float:
    """The minimum over a >= 5 by SciPy, in log(a - the smallest a that is allowed)."""
    least = max(5.0, 2 * (2 + 2**1.5 / m))

    def error(log_distance: float) -> float:
        return float(naive(scatter, m, np.array([least + exp(log_distance)]), documented)[0])

    found = minimize_scalar(error, bounds=(-30, 30), method="bounded", options={"xatol": 1e-10})
    return min(found.fun, error(-30))


@settings(deadline=None)
@given(scatters, st.integers(1, 500), st.booleans())
def test_the_few_shot_bound_equals_a_numerical_minimum(scatter: Scatter, m: int, documented: bool) -> None:
    """An independent minimiser, to 1e-6; the two forms differ only in their second term."""
    found = (documented_form if documented else proposition_1)(scatter, 2, m)
    assert found.error == pytest.approx(slow_minimum(scatter, m, documented), rel=1e-6)


def printed(scatter: Scatter, m: int) -> float:
    """The closed form that the authors' documentation prints, with its root, for two classes."""
    A = 2 + 2**1.5 / m
    F = scatter.directional * A * m / (sqrt(2) * scatter.cdnv)
    if A**2 >= 8 * F / 27:
        rest = sqrt(A**2 - 8 * F / 27)
        y = float(np.cbrt(4 * F * (2 * A + rest)) + np.cbrt(4 * F * (2 * A - rest)))
    else:
        y = 4 * sqrt(2 * F / 3) * cos(acos(3 * A * sqrt(3 / (8 * F))) / 3)
    return sqrt(2) * scatter.cdnv / (2 * A * m) * (y + 2 * A) * (y + 4 * A)


@pytest.mark.parametrize(
    ("directional", "cdnv", "m", "value", "smallest"),
    [(0.05, 2, 5, 12.46, 10.49), (0.5, 3, 10, 17.69, 15.16), (0.01, 5, 100, 1.444, 1.202)],
)
def test_the_documented_form_is_the_minimum_and_not_the_printed_value(
    directional: float, cdnv: float, m: int, value: float, smallest: float
) -> None:
    """Where the printed root is wrong, its value is too large; elsewhere both agree."""
    scatter = Scatter(cdnv, 1.0, directional)
    assert printed(scatter, m) == pytest.approx(value, rel=1e-3)
    assert documented_form(scatter, 2, m).error == pytest.approx(smallest, rel=1e-3)
    many = scatter._replace(directional=1.0)
    assert documented_form(many, 2, 1000).error == pytest.approx(printed(many, 1000), rel=1e-9)


@given(scatters, st.integers(1, 500))
def test_the_few_shot_bound_falls_with_shots_and_rises_with_scatter_and_classes(scatter: Scatter, m: int) -> None:
    for bound in (proposition_1, documented_form):
        value = bound(scatter, 2, m).error
        assert bound(scatter, 2, m + 1).error < value
        assert bound(scatter, 5, m).error == pytest.approx(4 * value, rel=1e-12)
        assert bound(scatter._replace(cdnv=scatter.cdnv * 1.1), 2, m).error > value
        assert bound(scatter._replace(directional=scatter.directional * 1.1), 2, m).error > value
    assert proposition_1(scatter._replace(root=scatter.root + 0.1), 2, m).error > proposition_1(scatter, 2, m).error


def test_the_few_shot_bound_uses_only_a_of_5_and_more() -> None:
    """It is proved for these a only. Below, the minimum for this scatter is .012197, at a = 4.9. By hand at a = 5."""
    scatter = Scatter(cdnv=0.01, root=0.09, directional=1e-5)
    A = 2 + 2**1.5 / 500
    by_hand = 1e-5 / (0.5 - A / 5) ** 2 + 5 / 4 * (2 / sqrt(500) * 0.1 + 0.01 / 500)
    found = proposition_1(scatter, 2, 500)
    assert (found.a, found.error) == (pytest.approx(5), pytest.approx(by_hand, rel=1e-12))
    assert found.error == pytest.approx(0.012228, abs=5e-7)
    assert documented_form(scatter._replace(directional=1e-9), 2, 500).a == pytest.approx(5)
    assert proposition_1(Scatter(0.5, 0.7, 0), 2, 500).a == 5.0


def test_the_few_shot_bound_has_the_known_limits() -> None:
    """Collapsed classes: no error. No scatter along the line: minimum at a = 2A. Many shots: Vdir remains."""
    assert proposition_1(Scatter(0, 0, 0), 9, 1).error == 0
    at_edge = proposition_1(Scatter(0.5, 0.7, 0), 2, 4)
    A = 2 + 2**1.5 / 4
    assert at_edge.a == 2 * A
    assert at_edge.error == pytest.approx(2 * A / 4 * (1.2 + 0.125), rel=1e-14)
    assert proposition_1(Scatter(1, 1, 0.01), 2, 10**16).error == pytest.approx(0.04, rel=1e-2)
    assert documented_form(Scatter(1, 1, 0.01), 2, 10**16).error == pytest.approx(0.04, rel=1e-2)


def test_the_gradient_gap_and_the_a_priori_bound_by_hand() -> None:
    """Logarithms are needed: in the papers' regime the bound exceeds e^(1e2) and must not overflow."""
    share = 0.1 + sqrt(log(100 * 256 / 0.05) / 512)
    gap = log_gradient_gap(256, 100, 0.5, 0.1, 0.05)
    assert exp(gap) == pytest.approx(2 * exp(4) * share / (1 - share), rel=1e-12)
    assert isinf(log_gradient_gap(4, 100, 0.5, 0.1, 0.05))
    assert exp(log_similarity_distance(3.0, 256, 0.5, gap)) == pytest.approx(
        exp(3 / (2 * 0.25 * 256)) * 3 / (0.5 * 16) * exp(gap), rel=1e-12
    )
    assert log_similarity_distance(0.0, 256, 0.5, gap) == -inf
    assert 1e3 < log_similarity_distance(1e5, 256, 0.1, log_gradient_gap(256, 10**6, 0.1, 0.1, 0.05)) < inf


@given(st.floats(0.1, 1e4), st.integers(64, 4096), st.floats(0.1, 2))
def test_the_a_priori_bound_grows_with_the_rates_and_shrinks_with_batch_and_temperature(rates, batch, tau) -> None:
    def bound(rates: float, batch: int, tau: float) -> float:
        return log_similarity_distance(rates, batch, tau, log_gradient_gap(batch, 1000, tau, 0.01, 0.05))

    assert bound(rates * 1.1, batch, tau) > bound(rates, batch, tau)
    assert bound(rates, batch + 1, tau) < bound(rates, batch, tau)
    assert bound(rates, batch, tau * 1.1) < bound(rates, batch, tau)


def test_alignment_floors_by_hand_and_in_their_limits() -> None:
    """rho = 0 means equal; from rho = 1 on, both floors are vacuous."""
    assert alignment_floor(log(0.25)) == pytest.approx(0.6, rel=1e-12)
    assert sharp_alignment_floor(log(0.6)) == pytest.approx(0.8, rel=1e-12)
    assert alignment_floor(-inf) == sharp_alignment_floor(-inf) == 1
    for vacuous in (0, 1e5, inf):
        assert alignment_floor(vacuous) == sharp_alignment_floor(vacuous) == -1


@given(st.integers(0, 10**6), st.floats(0.01, 3))
def test_no_cosine_lies_below_its_floors_and_the_sharp_one_is_reached(seed: int, size: float) -> None:
    """For any two vectors; the worst perturbation of a given size reaches the sharp floor exactly."""
    rng = torch.Generator().manual_seed(seed)
    a, step = torch.randn(2, 7, generator=rng, dtype=torch.float64)
    step = step / step.norm() * a.norm() * size

    def cosine(b: torch.Tensor) -> float:
        return float(a @ b / (a.norm() * b.norm()))

    log_rho = log(size)
    floors = alignment_floor(log_rho), sharp_alignment_floor(log_rho)
    assert floors[0] <= floors[1] + 1e-12
    assert cosine(a + step) >= max(floors) - 1e-9
    if size < 1:
        across = step - a * (a @ step) / (a @ a)
        along = -a * size**2 + across / across.norm() * a.norm() * size * sqrt(1 - size**2)
        assert float(along.norm() / a.norm()) == pytest.approx(size, rel=1e-9)
        assert cosine(a + along) == pytest.approx(floors[1], rel=1e-6, abs=1e-7)


def test_the_weight_shape_begins_with_its_slope_and_grows_exponentially() -> None:
    """It is a straight line at beta = 0, and continuous there."""
    assert weight_distance(2.0, 3.0, 0.5) == pytest.approx(3 * (exp(1) - 1) / 0.5, rel=1e-12)
    assert weight_distance(2.0, 3.0, 0.0) == 6
    assert weight_distance(2.0, 3.0, 1e-12) == pytest.approx(6, rel=1e-9)
    assert weight_distance(0.0, 3.0, 0.5) == 0
