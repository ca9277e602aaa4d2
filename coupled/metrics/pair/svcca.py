"""Singular vector canonical correlation analysis (SVCCA)."""

from coupled.metrics.pair._arrays import Matrix, value_from_sums
from coupled.metrics.pair._directions import canonical
from coupled.metrics.pair._sums import Moments, equal_rows
from coupled.metrics.undefined import Undefined

TRANSFORM = "plain"
RANGE = (0.0, 1.0)
DIRECTION = "higher"
SHARE = 0.99  # of the variance
INVARIANCES = ("rotation", "permutation", "scale", "shift")


def svcca(x: Matrix, y: Matrix) -> float:
    """Return the mean canonical correlation of the principal directions of two representations (SVCCA).

        mean over m of rho_m, the singular values of U_X^T U_Y

    U_X [n, K] are the left singular vectors of centred X [n, D] with the largest singular values, as few as have 99 %
    of the variance, and U_Y [n, L] those of Y [n, E]. The rho_m are min(K, L) canonical correlations. Directions are
    weighted equally, whatever their variance. If n is not much larger than K + L the value is high even for
    independent representations. It is exact over all rows in one pass.

    Args:
        x: rows [n, D], one per image: a numpy array, a tensor, or an iterable of blocks of rows. Computed in float64.
        y: rows [n, E] of the same images in the same order; another width and other blocks are allowed.

    Returns:
        The similarity, between 0 and 1: 1 if the directions of one are linear combinations of those of the other.
        NaN, whose attribute `reason` says why, if x or y is constant, or if K + L > n - 1 and x and y differ.

    Raises:
        ValueError: if one is not 2-D, has fewer than 2 rows or a value that is not finite, or if the numbers of rows or
            the devices differ.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(svcca(x, 3 * x[:, ::-1] + 1), 6)
        1.0

    Source: Raghu et al. 2017, arXiv 1706.05806; 99 % of the variance as in the paper.
    """
    return value_from_sums(value, TRANSFORM, x, y)


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """Return SVCCA from the sums."""
    if equal_rows(xx, yy, xy):
        return 1.0
    found = canonical(xx, yy, xy, SHARE)
    return found if isinstance(found, Undefined) else float(found.correlations_M.mean())
