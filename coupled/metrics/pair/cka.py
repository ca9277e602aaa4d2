"""Linear CKA, the biased estimate."""

from math import sqrt

from coupled.metrics.pair._arrays import Matrix, value_from_sums
from coupled.metrics.pair._sums import Moments
from coupled.metrics.undefined import Undefined

TRANSFORM = "plain"
RANGE = (0.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("rotation", "permutation", "scale", "shift")


def cka(x: Matrix, y: Matrix) -> float:
    """Return linear CKA of two representations.

        ||X^T Y||_F^2 / (||X^T X||_F ||Y^T Y||_F) of centred X [n, D], Y [n, E]

    The value equals <K, L> / (||K|| ||L||) of the centred Gram matrices. For few images and wide features it is far
    above 0 even if the representations are independent; see `cka_debiased`. It is exact over all rows in one pass,
    without an n x n matrix.

    Args:
        x: rows [n, D], one per image: a numpy array, a tensor, or an iterable of blocks of rows. Computed in float64.
        y: rows [n, E] of the same images in the same order; another width and other blocks are allowed.

    Returns:
        The similarity, between 0 and 1: 1 if they are equal up to rotation, scale and shift.
        NaN, whose attribute `reason` says why, if x or y is constant over the images.

    Raises:
        ValueError: if one is not 2-D, has fewer than 2 rows or a value that is not finite, or if the numbers of rows or
            the devices differ.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(cka(x, 3 * x[:, ::-1] + 1), 10)
        1.0

    Source: Kornblith et al. 2019, arXiv 1905.00414, section 3.
    """
    return value_from_sums(value, TRANSFORM, x, y)


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """Return linear CKA from the sums."""
    scale = squared_norm(xx) * squared_norm(yy)
    return squared_norm(xy) / sqrt(scale) if scale > 0 else Undefined("constant features")


def squared_norm(sums: Moments) -> float:
    """||X^T Y||_F^2 of centred X, Y: the inner product of their centred Gram matrices."""
    return float(sums.products_DE.square().sum())
