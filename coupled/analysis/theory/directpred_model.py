"""The two-layer linear model of P5 (arXiv 2102.06810): its gradient flow, its decoupled form, and its fixed points.

The objective is J = 1/2 E||W_p W x1 - W_a x2||^2, with a stop-gradient on W_a x2. The views x1 and x2 of an image have
mean covariance X = I and augmentation covariance X' = sigma^2 I, so E x1 x1' = (1 + sigma^2) I and E x2 x1' = I.
Weight decay eta acts on W and W_p; the predictor's learning rate is alpha_p times that of W.

* Lemma 1, with G = W_a - (1 + sigma^2) W_p W, the negative gradient of J with respect to the prediction:
  W_p' = alpha_p G W^T - eta W_p,   W' = W_p^T G - eta W,   W_a' = beta (W - W_a).
* Theorem 1: W W^T - W_p^T W_p / alpha_p is multiplied by e^(-2 eta t). Its derivative has the two terms of G twice with
  opposite signs, and -2 eta times itself.
* Theorem 2: without the stop-gradient (and W_a = W), or without a predictor, W -> 0. The gradient of J through both
  branches is ((W_p - I)^T (W_p - I) + sigma^2 (W_p^T W_p + I)) W. Without a predictor it is sigma^2 W. In both cases
  ||W(t)|| <= e^(-(sigma^2 + eta) t) ||W(0)||.
* Theorem 3: with W_a = tau W, W_p symmetric and its equation symmetrised, F = W W^T follows `symmetric_field`, and the
  commutator A = F W_p - W_p F follows A' = -(K A + A K), K = (1 + sigma^2)(alpha_p F / 2 + W_p^2) - tau W_p
  + 3/2 eta I. If K >= lambda I until t, ||A(t)|| <= e^(-2 lambda t) ||A(0)||. With lambda(t), the smallest eigenvalue
  of K at t, the sharper form is ||A(t)|| <= exp(-2 integral of lambda) ||A(0)||.
* Decoupled: if W = U diag(w) V^T, W_p = U diag(p) U^T, W_a = U diag(a) V^T at the start, this holds at all times, and
  every mode follows lemma 1 with numbers (`mode_field`). With s = w^2 and tau = a / w it is `eigenvalue_field`.

Derivations that are not in the paper's summary are done here: the form in tau of one mode, and the eigenvalues of the
fixed points. All functions are pure; arrays are float64.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RTOL, ATOL = 1e-9, 1e-12


class Model(NamedTuple):
    """Constants of the flow: ratio of learning rates, weight decay, rate of the EMA, augmentation variance sigma^2."""

    alpha_p: float
    eta: float
    beta: float
    sigma2: float

    @property
    def k(self) -> float:
        """1 + sigma^2."""
        return 1 + self.sigma2

    @property
    def largest_decay(self) -> float:
        """The weight decay above which only the collapsed fixed point exists, at tau = 1: 1 / (4 (1 + sigma^2))."""
        return 1 / (4 * self.k)


class FixedPoint(NamedTuple):
    """A fixed point of one mode; `eigenvalue` is the largest real part of the Jacobian's eigenvalues."""

    point: str  # collapse, lower or upper
    p: float
    s: float
    tau: float
    eigenvalue: float

    @property
    def stable(self) -> bool:
        """Whether every small deviation decays."""
        return self.eigenvalue < 0


def matrix_field(model: Model, W_p: Array, W: Array, W_a: Array) -> tuple[Array, Array, Array]:
    """Time derivatives of W_p [P, P], W [P, D] and W_a [P, D]. Source: P5, lemma 1."""
    G = W_a - model.k * W_p @ W
    return model.alpha_p * G @ W.T - model.eta * W_p, W_p.T @ G - model.eta * W, model.beta * (W - W_a)


def no_stop_gradient_field(model: Model, W_p: Array, W: Array) -> tuple[Array, Array]:
    """Time derivatives of W_p and W with W_a = W and gradients through both branches. Source: P5, theorem 2."""
    one = np.eye(len(W_p))
    G = W - model.k * W_p @ W
    through_both = (W_p - one).T @ (W_p - one) + model.sigma2 * (W_p.T @ W_p + one)
    return model.alpha_p * G @ W.T - model.eta * W_p, -through_both @ W - model.eta * W


def no_predictor_field(model: Model, W: Array) -> Array:
    """Time derivative of W with W_p = I, W_a = W and the stop-gradient. Source: P5, theorem 2."""
    return -(model.sigma2 + model.eta) * W


def symmetric_field(model: Model, W_p: Array, F: Array, tau: float = 1.0) -> tuple[Array, Array]:
    """Time derivatives of a symmetric W_p and of F = W W^T, with W_a = tau W. Source: P5, theorem 3."""
    square = W_p @ W_p
    of_p = -model.alpha_p * model.k / 2 * (W_p @ F + F @ W_p) + model.alpha_p * tau * F - model.eta * W_p
    of_f = -model.k * (square @ F + F @ square) + tau * (W_p @ F + F @ W_p) - 2 * model.eta * F
    return of_p, of_f


class DataModel(NamedTuple):
    """Constants of the flow for views with other second moments: lemma 1 before the assumption of isotropic views."""

    alpha_p: float
    eta: float
    beta: float | None  # None: no EMA, W_a = W
    between: Array  # X = E x2 x1' of two views of an image, [D, D]
    within: Array  # E x1 x1' = X + X' of one view, [D, D]
    symmetric: bool  # W_p is made symmetric after every step, so its equation is symmetrised


def data_field(model: DataModel, W_p: Array, W: Array, W_a: Array) -> tuple[Array, Array, Array]:
    """Time derivatives of W_p [P, P], W [P, D] and W_a [P, D] for the views of `model`. Source: P5, lemma 1.

    G = W_a X - W_p W (X + X'). Without an EMA `W_a` is not used, and its derivative is 0.
    """
    target = W if model.beta is None else W_a
    G = target @ model.between - W_p @ W @ model.within
    of_p = model.alpha_p * G @ W.T
    of_p = (of_p + of_p.T) / 2 if model.symmetric else of_p
    of_a = np.zeros_like(W_a) if model.beta is None else model.beta * (W - W_a)
    return of_p - model.eta * W_p, W_p.T @ G - model.eta * W, of_a


def commutator_rate(model: Model, W_p: Array, F: Array, tau: float = 1.0) -> Array:
    """The matrix K, by which the commutator A decays: A' = -(K A + A K). Source: P5, theorem 3."""
    K = model.k * (model.alpha_p / 2 * F + W_p @ W_p) - tau * W_p + 1.5 * model.eta * np.eye(len(F))
    return np.asarray(K, float)


def mode_field(model: Model, p: float, w: float, a: float) -> tuple[float, float, float]:
    """Time derivatives of p, w and a of one mode: lemma 1 with numbers. It has no pole where the mode collapses."""
    g = a - model.k * p * w
    return model.alpha_p * g * w - model.eta * p, p * g - model.eta * w, model.beta * (w - a)


def plane_field(model: Model, p: Array | float, s: Array | float, tau: float = 1.0) -> tuple[Array, Array]:
    """Time derivatives of p and s = w^2 at a fixed tau = a / w; tau = 1 is the model without an EMA."""
    m = tau - model.k * np.asarray(p)
    return model.alpha_p * s * m - model.eta * np.asarray(p), 2 * p * s * m - 2 * model.eta * np.asarray(s)


def eigenvalue_field(model: Model, p: float, s: float, tau: float) -> tuple[float, float, float]:
    """Time derivatives of p, s and tau of one mode with an EMA.

    tau = a / w gives tau' = beta (1 - tau) - tau w' / w, and w' / w = p (tau - (1 + sigma^2) p) - eta.
    """
    of_p, of_s = plane_field(model, p, s, tau)
    growth = p * (tau - model.k * p) - model.eta
    return float(of_p), float(of_s), model.beta * (1 - tau) - tau * growth


def parabola_field(model: Model, p: Array | float, tau: float = 1.0) -> Array:
    """Time derivative of p on the invariant parabola s = p^2 / alpha_p: p^2 (tau - (1 + sigma^2) p) - eta p."""
    p = np.asarray(p, float)
    return np.asarray(p**2 * (tau - model.k * p) - model.eta * p, float)


def plane_fixed_points(model: Model, tau: float = 1.0) -> list[FixedPoint]:
    """The fixed points of `plane_field` for eta > 0, all on the parabola.

    p = 0 has the eigenvalues -eta and -2 eta. p = (tau -+ sqrt(tau^2 - 4 eta (1 + sigma^2))) / (2 (1 + sigma^2)) has
    2 eta - tau p along the parabola and -2 eta across it: the lower point is a saddle, the upper one is stable. Above
    eta = tau^2 / (4 (1 + sigma^2)) only p = 0 is left. Source: P5 for the points; the eigenvalues are derived here.
    """
    found = [FixedPoint("collapse", 0.0, 0.0, tau, -model.eta)]
    for point, p in _roots(model, tau):
        found.append(FixedPoint(point, p, p**2 / model.alpha_p, tau, max(2 * model.eta - tau * p, -2 * model.eta)))
    return found


def fixed_points(model: Model) -> list[FixedPoint]:
    """The fixed points of `eigenvalue_field` for eta > 0.

    The points with p > 0 have tau = 1. On the parabola their Jacobian in (p, tau) has the trace 2 eta - 2p - beta and
    the determinant beta (p - 2 eta); across it the eigenvalue is -2 eta. So every beta > 0 leaves the stability of the
    model without an EMA. The collapsed point has tau = beta / (beta - eta), because a then decays later than w, and
    exists for beta > eta. Its eigenvalues are -eta, -2 eta and eta - beta. Derived here.
    """
    eta, beta, found = model.eta, model.beta, []
    if beta > eta:
        found.append(FixedPoint("collapse", 0.0, 0.0, beta / (beta - eta), max(-eta, eta - beta)))
    for point, p in _roots(model, 1.0):
        largest = max(np.roots([1.0, 2 * p + beta - 2 * eta, beta * (p - 2 * eta)]).real)
        found.append(FixedPoint(point, p, p**2 / model.alpha_p, 1.0, max(float(largest), -2 * eta)))
    return found


def _roots(model: Model, tau: float) -> list[tuple[str, float]]:
    """The roots of (1 + sigma^2) p^2 - tau p + eta = 0, if they are two."""
    square = tau**2 - 4 * model.eta * model.k
    if square <= 0:
        return []
    upper = (tau + sqrt(square)) / (2 * model.k)
    return [("lower", model.eta / (model.k * upper)), ("upper", upper)]  # their product is eta / (1 + sigma^2)


def integrate(
    model: Any, field: Callable[..., tuple[object, ...]], start: Sequence[Array | float], times: Array
) -> list[Array]:
    """Integrate field(model, *parts) from the parts `start`, numbers or arrays, to each of the `times`.

    Returns each part with a first axis of the times. Raises ArithmeticError if the solver fails.
    """
    from scipy.integrate import solve_ivp

    shapes = [np.shape(part) for part in start]
    cuts = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]

    def apart(y: Array) -> list[Any]:
        parts = zip(np.split(y, cuts), shapes, strict=True)
        return [part.reshape(shape) if shape else float(part[0]) for part, shape in parts]

    def flat(parts: Sequence[object]) -> Array:
        return np.concatenate([np.asarray(part, float).ravel() for part in parts])

    def derivative(_: float, y: Array) -> Array:
        return flat(field(model, *apart(y)))

    span = (float(times[0]), float(times[-1]))
    solved = solve_ivp(derivative, span, flat(start), "LSODA", t_eval=times, rtol=RTOL, atol=ATOL)
    if not solved.success:
        raise ArithmeticError(f"the integration stopped at time {solved.t[-1]:g}: {solved.message}")
    rows = [apart(column) for column in solved.y.T]
    return [np.stack([row[i] for row in rows]) for i in range(len(shapes))]
