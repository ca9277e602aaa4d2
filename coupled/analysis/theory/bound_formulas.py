"""The papers' bounds, one pure function each.

P1 is arXiv 2506.04411, P2 arXiv 2510.08852. A function returns the natural logarithm of a number that may exceed the
range of floats. Losses are in nats; errors are fractions of images; CKA and RSA have no unit.

Letters: tau temperature > 0, B images of a batch, N images of the set, n_c of them of class c, C classes, m labelled
images per class, T steps, eta their learning rates.
"""

from math import exp, inf, log, log1p, sqrt
from typing import NamedTuple

import numpy as np


def anchor_gap(class_count: int, batch: int, temperature: float) -> float:
    """Upper bound of L_DCL - L_NSCL, in nats, for an anchor whose class has `class_count` images in the batch.

    log(1 + (n_c - 1) e^(2/tau) / (B - n_c)); infinite if the batch has no other class. The lower bound is 0. It holds
    with and without the positive in both denominators. Source: the proof of P1, theorem 1, for one anchor of a finite
    batch.
    """
    if class_count <= 1:
        return 0.0
    if class_count >= batch:
        return inf
    return _log1p_exp(log(class_count - 1) - log(batch - class_count) + 2 / temperature)


def set_gap(largest_class: int, images: int, temperature: float) -> float:
    """The closed form for the whole set, in nats: log(1 + n_max e^(2/tau) / (N - n_max)); infinite for one class.

    In a balanced set it is log(1 + e^(2/tau) / (C - 1)). It assumes negatives from the whole set. A batch in which a
    class is overrepresented may exceed it, but never `anchor_gap`. Source: P1, theorem 1 (there tau = 1).
    """
    if largest_class >= images:
        return inf
    return _log1p_exp(log(largest_class) - log(images - largest_class) + 2 / temperature)


LEAST_A = 5.0  # smallest a for which the few-shot bounds are proved


class FewShot(NamedTuple):
    """A bound on an error, minimised over the free constant a of the proposition, and the minimising a."""

    error: float
    a: float


class Scatter(NamedTuple):
    """Means over ordered pairs of classes i != j, without unit; convention `one_class` of metrics/arm/cdnv.py."""

    cdnv: float  # V, of v_i / d_ij^2
    root: float  # Vs, of sqrt(v_i / d_ij^2)
    directional: float  # Vdir, of the variance along the line / d_ij^2


def proposition_1(scatter: Scatter, classes: int, shots: int) -> FewShot:
    """The bound on the error of the nearest class centre from m = `shots` images of each of `classes` classes.

    (C - 1) min { (1/2 - A/a)^-2 Vdir + (a/4) [(2/sqrt m)(Vs + V) + V/m] } over a >= 5 and a > 2A, A = 2 + 2^(3/2)/m.
    Vacuous from `vacuous_error` on. Source: P1, proposition 1.
    """
    growth = (2 / sqrt(shots) * (scatter.root + scatter.cdnv) + scatter.cdnv / shots) / 4
    return _smallest(scatter.directional, growth, classes, shots)


def documented_form(scatter: Scatter, classes: int, shots: int) -> FewShot:
    """As `proposition_1` with 2^(3/2) V/m instead of (1/4) [...]: the form in the authors' documentation of P1.

    Unlike the published form (`proposition_1`) it has neither Vs nor a term in 1/sqrt m. It is larger for few shots,
    decreases faster (second term like 1/m), and is smaller for many shots. P1 proves only the published form.

    It differs from the closed form that the documentation prints in two ways. The printed root is wrong where
    A^2 >= 8 F / 27, F = Vdir A m / (sqrt 2 V): there the printed value is 5 to 20 % above the minimum, which this
    function returns. And the printed form does not exclude a < 5, which can only give a smaller value.
    """
    return _smallest(scatter.directional, 2 * sqrt(2) * scatter.cdnv / shots, classes, shots)


def vacuous_error(classes: int) -> float:
    """The value from which a bound on an error is vacuous: 1/2 for two classes (chance level), else 1."""
    return 0.5 if classes == 2 else 1.0


def _smallest(directional: float, growth: float, classes: int, shots: int) -> FewShot:
    """(classes - 1) times the minimum of (1/2 - A/a)^-2 directional + a growth over a >= 5 and a > 2A.

    With a = 2A (1 + t) this is 4 directional (1 + 1/t)^2 + 2A (1 + t) growth, convex in t > 0. Its derivative is zero
    where q t^3 = t + 1, q = A growth / (4 directional), which has one positive root. If that a is below 5, the minimum
    is at 5, because the function is convex.
    """
    A = 2 + 2 * sqrt(2) / shots
    if growth == 0:
        return FewShot((classes - 1) * 4 * directional, inf)
    if directional == 0:
        a = max(LEAST_A, 2 * A)
        return FewShot((classes - 1) * a * growth, a)
    q = A * growth / (4 * directional)
    t = max(float(max(np.roots([1, 0, -1 / q, -1 / q]).real)), LEAST_A / (2 * A) - 1)
    return FewShot((classes - 1) * (4 * directional * (1 + 1 / t) ** 2 + 2 * A * (1 + t) * growth), 2 * A * (1 + t))


def log_gradient_gap(batch: int, steps: int, temperature: float, largest_share: float, delta: float) -> float:
    """log of Delta = 2 e^(2/tau) (pi + eps) / (1 - pi - eps), eps = sqrt(log(T B / delta) / (2 B)); no unit.

    With probability 1 - delta no batch of the run has a class with more than the share pi + eps. Infinite if
    pi + eps >= 1, where the statement is empty. Source: P2.
    """
    share = largest_share + sqrt(log(steps * batch / delta) / (2 * batch))
    return inf if share >= 1 else log(2) + 2 / temperature + log(share) - log(1 - share)


def log_similarity_distance(rates: float, batch: int, temperature: float, log_gap: float) -> float:
    """log of the a-priori bound on ||Sigma_CL - Sigma_NSCL||_F of the similarity matrices.

    exp(sum eta / (2 tau^2 B)) (sum eta) / (tau sqrt B) Delta; `rates` is sum eta > 0 over the steps, `log_gap` is
    log Delta. Minus infinity before the first step. Source: P2, the a-priori bound.
    """
    if rates == 0:
        return -inf
    return rates / (2 * temperature**2 * batch) + log(rates) - log(temperature) - log(batch) / 2 + log_gap


def alignment_floor(log_rho: float) -> float:
    """Lower bound (1 - rho) / (1 + rho) of CKA and RSA, from log rho.

    rho = ||K_a - K_b||_F / ||K_a||_F of the matrices that the score correlates: centred Gram matrices for CKA, cosine
    similarities of all pairs minus their mean for RSA. For rho >= 1 the bound is vacuous and the value is -1: the
    formula would be negative there, and a score may lie below it. Source: P2.
    """
    return -float(np.tanh(log_rho / 2)) if log_rho < 0 else -1.0


def sharp_alignment_floor(log_rho: float) -> float:
    """Lower bound sqrt(1 - rho^2), which is never below `alignment_floor` and is the tightest bound from rho.

    It is -1 (vacuous) for rho >= 1. Derived here: seen from the origin, the ball of radius rho ||K_a|| around K_a
    covers the angles whose sine is at most rho.
    """
    return sqrt(-np.expm1(2 * log_rho)) if log_rho < 0 else -1.0


def weight_distance(rates: float, slope: float, beta: float) -> float:
    """The shape of the bound on ||w_CL - w_NSCL||: slope (exp(beta sum eta) - 1) / beta, in units of the weights.

    In the bound `slope` is G Delta / tau and `beta` the smoothness; both are unknown for a network. At beta = 0 it is a
    straight line. Source: P2.
    """
    return slope * (float(np.expm1(beta * rates)) / beta if beta > 0 else rates)


def _log1p_exp(x: float) -> float:
    """log(1 + e^x) without overflow."""
    return max(x, 0.0) + log1p(exp(-abs(x)))
