"""Projection-weighted canonical correlation analysis (PWCCA)."""

from coupled.metrics.pair._arrays import Matrix, value_from_sums
from coupled.metrics.pair._directions import canonical
from coupled.metrics.pair._sums import Moments, equal_rows
from coupled.metrics.undefined import Undefined

TRANSFORM = "plain"
RANGE = (0.0, 1.0)
DIRECTION = "higher"
SYMMETRIC = False
INVARIANCES = ("permutation", "scale", "shift")  # a rotation of x changes the weights


def pwcca(x: Matrix, y: Matrix) -> float:
    """Return the mean canonical correlation, weighted by how much of x each canonical direction accounts for (PWCCA).

        sum_m a_m rho_m / sum_m a_m with a_m = sum_j |<v_m, x_j>|

    rho_m are the canonical correlations of centred X [n, D] and Y [n, E], v_m [n] is the canonical variate of X with
    unit norm, and x_j is column j of X, a feature. Directions with less than 1e-10 of the largest variance are left
    out. The weights are those of x, so pwcca(x, y) and pwcca(y, x) differ; `coupled alignment` takes the reference arm
    as x. Any invertible linear map of y leaves the value unchanged. If n is not much larger than K + L, the numbers of
    directions, the value is high even for independent representations. It is exact over all rows in one pass.

    Args:
        x: rows [n, D], one per image: a numpy array, a tensor, or an iterable of blocks of rows. Computed in float64.
        y: rows [n, E] of the same images in the same order; another width and other blocks are allowed.

    Returns:
        The similarity, between 0 and 1: 1 if all canonical directions of x are linear combinations of features of y.
        NaN, whose attribute `reason` says why, if x or y is constant, or if K + L > n - 1 and x and y differ.

    Raises:
        ValueError: if one is not 2-D, has fewer than 2 rows or a value that is not finite, or if the numbers of rows or
            the devices differ.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(pwcca(x, 3 * x[:, ::-1] + 1), 6)
        1.0

    Source: Morcos et al. 2018, arXiv 1806.05759. Their code takes the weights of the representation with
    fewer features; here they are always those of x.
    """
    return value_from_sums(value, TRANSFORM, x, y)


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """Return PWCCA from the sums; x is the representation whose directions are weighted."""
    if equal_rows(xx, yy, xy):
        return 1.0
    found = canonical(xx, yy, xy)
    if isinstance(found, Undefined):
        return found
    # X = U S V^T and v = U p, so X^T v = V S p
    weights_M = (found.x.vectors_DK * found.x.roots_K @ found.variates_KM).abs().sum(0)
    return min(1.0, float(weights_M @ found.correlations_M / weights_M.sum()))
