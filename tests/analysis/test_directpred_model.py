"""The linear model of DirectPred: its matrix form, its decoupled form, its theorems and its fixed points."""

import numpy as np
import pytest

from coupled.analysis.theory.directpred_model import (
    Array,
    Model,
    commutator_rate,
    eigenvalue_field,
    fixed_points,
    integrate,
    matrix_field,
    mode_field,
    no_predictor_field,
    no_stop_gradient_field,
    parabola_field,
    plane_field,
    plane_fixed_points,
    symmetric_field,
)

MODEL = Model(alpha_p=1.5, eta=0.05, beta=0.4, sigma2=0.3)
TIMES = np.linspace(0, 20, 21)


def random(seed: int, *shape: int) -> Array:
    return np.random.Generator(np.random.Philox(seed)).normal(size=shape)


def orthogonal(seed: int, size: int) -> Array:
    return np.linalg.qr(random(seed, size, size))[0]


def numeric_jacobian(field: object, at: list[float]) -> Array:
    step = 1e-6
    moved = [[np.array(at) + sign * step * axis for sign in (1, -1)] for axis in np.eye(len(at))]
    return np.array([(np.array(field(*up)) - np.array(field(*down))) / (2 * step) for up, down in moved]).T  # type: ignore[operator]


def test_lemma_1_is_the_gradient_of_the_objective() -> None:
    """By finite differences of J, written as traces of the covariances of the views."""
    W_p, W, W_a = random(1, 3, 3), random(2, 3, 4), random(3, 3, 4)

    def objective(W_p: Array, W: Array, W_a: Array) -> float:
        f, target = W_p @ W, W_a
        return float(MODEL.k * np.sum(f * f) / 2 - np.sum(f * target) + MODEL.k * np.sum(target * target) / 2)

    def slope(function: object, at: Array) -> Array:
        found = np.zeros_like(at)
        for place in np.ndindex(*at.shape):
            step = np.zeros_like(at)
            step[place] = 1e-6
            found[place] = (function(at + step) - function(at - step)) / 2e-6  # type: ignore[operator]
        return found

    of_p, of_w, of_a = matrix_field(MODEL, W_p, W, W_a)
    np.testing.assert_allclose(
        of_p, -MODEL.alpha_p * slope(lambda x: objective(x, W, W_a), W_p) - MODEL.eta * W_p, atol=1e-6
    )
    np.testing.assert_allclose(of_w, -slope(lambda x: objective(W_p, x, W_a), W) - MODEL.eta * W, atol=1e-6)
    np.testing.assert_allclose(of_a, MODEL.beta * (W - W_a))
    both = no_stop_gradient_field(MODEL, W_p, W)[1]
    np.testing.assert_allclose(both, -slope(lambda x: objective(W_p, x, x), W) - MODEL.eta * W, atol=1e-6)
    np.testing.assert_allclose(no_predictor_field(MODEL, W), matrix_field(MODEL, np.eye(3), W, W)[1], atol=1e-12)


def test_the_matrix_form_equals_the_decoupled_form() -> None:
    """Modes stay apart, and (p, w, a) is the same as (p, s, tau)."""
    U, V, size = orthogonal(1, 4), orthogonal(2, 4), 4
    p, w, a = np.array([0.3, 0.6, 0.1, 0.9]), np.array([0.8, 0.4, 1.1, 0.5]), np.array([0.8, 0.1, 0.5, 0.7])
    start = [U @ np.diag(p) @ U.T, U @ np.diag(w) @ V.T, U @ np.diag(a) @ V.T]
    W_p, W, W_a = integrate(MODEL, matrix_field, start, TIMES)
    for j in range(size):
        modes = integrate(MODEL, mode_field, [p[j], w[j], a[j]], TIMES)
        for whole, right, mode in zip((W_p, W, W_a), (U, V, V), modes, strict=True):
            rotated = U.T @ whole @ right
            np.testing.assert_allclose(rotated[:, j, j], mode, atol=1e-6)
            np.testing.assert_allclose(np.delete(rotated[:, j], j, axis=1), 0, atol=1e-6)
        start_j = [p[j], w[j] ** 2, a[j] / w[j]]
        values = integrate(MODEL, eigenvalue_field, start_j, TIMES)
        for value, mode in zip(values, (modes[0], modes[1] ** 2, modes[2] / modes[1]), strict=True):
            np.testing.assert_allclose(value, mode, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.05])
def test_theorem_1_the_invariant_decays_at_twice_the_weight_decay(eta: float) -> None:
    """For general matrices and an EMA target; without weight decay it is conserved."""
    model = MODEL._replace(eta=eta)
    start = [random(4, 3, 3) / 3, random(5, 3, 4) / 2, random(6, 3, 4) / 2]
    W_p, W, _ = integrate(model, matrix_field, start, TIMES)
    invariant = W @ W.transpose(0, 2, 1) - W_p.transpose(0, 2, 1) @ W_p / model.alpha_p
    assert np.abs(invariant[0]).max() > 0.1
    np.testing.assert_allclose(invariant, np.exp(-2 * eta * TIMES)[:, None, None] * invariant[0], atol=1e-6)


def test_theorem_2_without_stop_gradient_or_predictor_the_weights_vanish() -> None:
    """Also without weight decay; with both, W keeps its size from the same start."""
    model = MODEL._replace(eta=0.0)
    W_p, W = np.eye(3) * 0.5, random(5, 3, 4)
    size = np.linalg.norm
    _, both = integrate(model, no_stop_gradient_field, [W_p, W], TIMES)
    (alone,) = integrate(model, lambda m, x: (no_predictor_field(m, x),), [W], TIMES)
    _, kept, _ = integrate(model, matrix_field, [W_p, W, W], TIMES)
    limit = np.exp(-model.sigma2 * TIMES) * size(W)
    assert (size(both, axis=(1, 2)) <= limit * (1 + 1e-6)).all()
    np.testing.assert_allclose(size(alone, axis=(1, 2)), limit, rtol=1e-6)
    assert size(kept[-1]) > 0.5 * size(W)


def test_theorem_3_the_commutator_follows_its_rate() -> None:
    """A' = -(K A + A K) at any symmetric matrices, and the exponential bound over time."""
    W_p, W = random(7, 4, 4), random(8, 4, 4)
    W_p, F = (W_p + W_p.T) / 4, W @ W.T / 4
    of_p, of_f = symmetric_field(MODEL, W_p, F, 0.9)
    A, K = F @ W_p - W_p @ F, commutator_rate(MODEL, W_p, F, 0.9)
    derivative = of_f @ W_p + F @ of_p - of_p @ F - W_p @ of_f
    np.testing.assert_allclose(derivative, -(K @ A + A @ K), atol=1e-12)
    p, f = integrate(MODEL, symmetric_field, [W_p, F], TIMES)
    norms = np.linalg.norm(f @ p - p @ f, axis=(1, 2))
    lowest = np.minimum.accumulate(
        [np.linalg.eigvalsh(commutator_rate(MODEL, *pair))[0] for pair in zip(p, f, strict=True)]
    )
    assert (norms <= np.exp(-2 * lowest * TIMES) * norms[0] * (1 + 1e-6)).all()


def test_fixed_points_are_zeros_with_the_stability_of_the_numerical_jacobian() -> None:
    """With and without an EMA, below and above the largest weight decay, for slow and fast targets."""
    names = set()
    for eta in (0.01, 0.1, 0.19, 0.3):
        for beta in (0.05, 0.4, 5.0):
            model = MODEL._replace(eta=eta, beta=beta)
            for each in fixed_points(model):
                at = [each.p, each.s, each.tau]
                np.testing.assert_allclose(eigenvalue_field(model, *at), 0, atol=1e-12)
                found = np.linalg.eigvals(numeric_jacobian(lambda *x, m=model: eigenvalue_field(m, *x), at)).real.max()
                assert each.eigenvalue == pytest.approx(found, abs=1e-6)
                assert each.stable == (found < 0) == (each.point != "lower")
                names.add(each.point)
            for tau in (0.8, 1.0):
                for each in plane_fixed_points(model, tau):
                    field = lambda *x, m=model, t=tau: plane_field(m, *x, t)  # noqa: E731
                    np.testing.assert_allclose(field(each.p, each.s), 0, atol=1e-12)
                    found = np.linalg.eigvals(numeric_jacobian(field, [each.p, each.s])).real.max()
                    assert each.eigenvalue == pytest.approx(found, abs=1e-6)
                    assert parabola_field(model, each.p, tau) == pytest.approx(0, abs=1e-12)
            assert (len(fixed_points(model)) >= 2) == (eta < model.largest_decay)
    assert names == {"collapse", "lower", "upper"}


@pytest.mark.parametrize(
    ("eta", "start", "end"), [(0.1, 0.5, "upper"), (0.1, 0.05, "collapse"), (0.2, 0.7, "collapse")]
)
def test_a_mode_collapses_above_the_largest_decay_or_below_the_lower_point(
    eta: float, start: float, end: float
) -> None:
    """From a point of the parabola, with the target equal to W at the start."""
    model = MODEL._replace(eta=eta, beta=2.0)
    w = start / np.sqrt(model.alpha_p)
    p, w_t, _ = integrate(model, mode_field, [start, w, w], np.array([0.0, 1000.0]))
    reached = {each.point: each for each in fixed_points(model)}[end]
    assert [p[-1], w_t[-1] ** 2] == pytest.approx([reached.p, reached.s], abs=1e-6)
    assert (reached.p == 0) == (end == "collapse")


def test_without_weight_decay_a_positive_predictor_does_not_collapse() -> None:
    """p tends to 1 / (1 + sigma^2), and s keeps its distance from the parabola."""
    model = MODEL._replace(eta=0.0)
    p, w, _ = integrate(model, mode_field, [0.01, 0.5, 0.5], np.array([0.0, 500.0]))
    assert p[-1] == pytest.approx(1 / model.k, abs=1e-6)
    assert w[-1] ** 2 - p[-1] ** 2 / model.alpha_p == pytest.approx(0.25 - 1e-4 / model.alpha_p, abs=1e-6)
