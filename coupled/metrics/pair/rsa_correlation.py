"""RSA with correlation distance.

Source: Kriegeskorte et al. 2008, Frontiers in Systems Neuroscience 2:4, who use this dissimilarity.
"""

from coupled.metrics.pair import rsa
from coupled.metrics.pair._arrays import Matrix, value_from_sums
from coupled.metrics.pair._sums import Moments

TRANSFORM = "unit_centred"
RANGE = (-1.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("permutation", "scale", "row_scale", "row_shift")  # a rotation changes the mean of the features


def rsa_correlation(x: Matrix, y: Matrix) -> float:
    """Representational similarity (Kriegeskorte et al. 2008, Front. Syst. Neurosci. 2:4), correlation distance.

    See `value` for the formula. Exact over all pairs of rows in one pass, without an n x n matrix.

    Args:
        x: rows [n, D], one per image: a numpy array, a tensor, or an iterable of blocks of rows. Computed in float64.
        y: rows [n, E] of the same images in the same order; another width and other blocks are allowed.

    Returns:
        Pearson correlation of the dissimilarities of all pairs of images, between -1 and 1.
        NaN, whose attribute `reason` says why, if all pairs of x or of y are equally similar, or for fewer than 3
        images.

    Raises:
        ValueError: if one is not 2-D, has fewer than 2 rows or a value that is not finite, or if the numbers of rows or
            the devices differ.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(rsa_correlation(x, 3 * x[:, ::-1] + 1), 10)
        1.0
    """
    return value_from_sums(value, TRANSFORM, x, y)


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """Pearson correlation, over all pairs of images, of one minus the Pearson correlation of their rows.

    Equal to `rsa` after the mean of each row is subtracted. A row of equal entries has correlation 0 with every other.
    Undefined if all pairs of X or all pairs of Y are equally similar, or for fewer than 3 images.
    """
    return rsa.value(xx, yy, xy)
