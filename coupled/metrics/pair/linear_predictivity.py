"""Linear predictivity: R^2 of the arm from the reference by least squares."""

from coupled.metrics.pair._arrays import Matrix, value_from_sums
from coupled.metrics.pair._directions import explained
from coupled.metrics.pair._sums import Moments, equal_rows

TRANSFORM = "plain"
RANGE = (0.0, 1.0)
DIRECTION = "higher"
SYMMETRIC = False
INVARIANCES = ("rotation", "permutation", "scale", "shift")


def linear_predictivity(x: Matrix, y: Matrix) -> float:
    """Return the share of the variance of y that a linear map of x explains (R^2 of least squares with a bias).

        1 - min_{W, b} ||Y - X W - b||_F^2 / ||Y - mean Y||_F^2 of X [n, D], Y [n, E]

    All features of y count by their variance. `coupled alignment` takes the reference arm as x, so this predicts the
    arm from the reference; `linear_predictivity_reverse` is the other direction. Any invertible linear map of x leaves
    the value unchanged. W is fitted and scored on the same rows: for independent representations the value is about
    K / n, with K the number of directions of x that have at least 1e-10 of its largest variance. It is exact over all
    rows in one pass.

    Args:
        x: rows [n, D], one per image: a numpy array, a tensor, or an iterable of blocks of rows. Computed in float64.
        y: rows [n, E] of the same images in the same order; another width and other blocks are allowed.

    Returns:
        R^2, between 0 and 1: 1 if y is a linear function of x.
        NaN, whose attribute `reason` says why, if x or y is constant, or if K is n - 1 or more and x and y differ.

    Raises:
        ValueError: if one is not 2-D, has fewer than 2 rows or a value that is not finite, or if the numbers of rows or
            the devices differ.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(linear_predictivity(x, 3 * x[:, ::-1] + 1), 6)
        1.0

    Source: Kornblith et al. 2019, arXiv 1905.00414, section 4, "linear regression".
    """
    return value_from_sums(value, TRANSFORM, x, y)


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """Return R^2 of y from the sums."""
    return 1.0 if equal_rows(xx, yy, xy) else explained(xx, yy, xy.products_DE)
