"""How far two arms' similarity matrices are apart, from the d x d sums of pair_metrics: no n x n matrix is made.

CKA correlates centred Gram matrices, RSA the cosine similarities of all pairs less their mean; both are cosines of two
vectors k, l, so what is needed is rho = ||k - l|| / ||k|| and ||k||. Source of the use: arXiv 2510.08852.
"""

from math import log, sqrt

from coupled.analysis.metric_registry import PairMetric
from coupled.metrics.pair._sums import Moments
from coupled.metrics.pair.cka import squared_norm
from coupled.metrics.pair.rsa import covariance
from coupled.metrics.undefined import Undefined

INF = float("inf")


def rho_cka(xx: Moments, yy: Moments, xy: Moments) -> float:
    """||K - L||_F / ||K||_F of the centred Gram matrices K of X [n, D] and L of Y [n, E]. Undefined for constant X."""
    return _ratio(squared_norm(xx), squared_norm(yy), squared_norm(xy))


def rho_rsa(xx: Moments, yy: Moments, xy: Moments) -> float:
    """The same of the cosine similarities of all pairs i != j, less their mean. Undefined where all are equal in X."""
    return _ratio(covariance(xx), covariance(yy), covariance(xy))


def log_norm_cka(xx: Moments, yy: Moments, xy: Moments) -> float:
    """log of ||K||_F of the centred matrix K of cosine similarities. Undefined for constant X."""
    return _half_log(squared_norm(xx))


def log_norm_rsa(xx: Moments, yy: Moments, xy: Moments) -> float:
    """log of the norm of the cosine similarities of all ordered pairs i != j, less their mean. Undefined for 0."""
    return _half_log(covariance(xx))


def _ratio(of_x: float, of_y: float, of_both: float) -> float:
    if of_x <= 0:
        return Undefined("constant features")
    return sqrt(max(0.0, of_x + of_y - 2 * of_both) / of_x)


def _half_log(square: float) -> float:
    return log(square) / 2 if square > 0 else Undefined("constant features")


DISTANCES = {  # as pair metrics, so that the one pass of alignment.py gathers their sums, too
    name: PairMetric(name, span, "lower", frozenset(), transform, None, value)
    for name, transform, span, value in (
        ("rho_cka", "plain", (0.0, INF), rho_cka),
        ("rho_rsa", "unit", (0.0, INF), rho_rsa),
        ("log_norm_cka", "unit", (-INF, INF), log_norm_cka),
        ("log_norm_rsa", "unit", (-INF, INF), log_norm_rsa),
    )
}
