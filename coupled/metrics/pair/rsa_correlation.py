"""RSA with correlation distance."""

from coupled.metrics.pair import rsa
from coupled.metrics.pair._arrays import Matrix, value_from_sums
from coupled.metrics.pair._sums import Moments

TRANSFORM = "unit_centred"
RANGE = (-1.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("permutation", "scale", "row_scale", "row_shift")  # a rotation changes the mean of the features


def rsa_correlation(x: Matrix, y: Matrix) -> float:
    """Return the correlation of the pairwise correlation distances of two representations (RSA).

        corr over pairs i < j of (1 - r(x_i, x_j)) and (1 - r(y_i, y_j))

    corr and r are Pearson correlations: corr over all n (n - 1) / 2 pairs of rows of X [n, D] and Y [n, E], r over the
    features of two rows. The value equals `rsa` after the mean of each row is subtracted. A row of equal entries has
    correlation 0 with every other. It is exact over all pairs in one pass, without an n x n matrix.

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

    Source: Kriegeskorte et al. 2008, Frontiers in Systems Neuroscience 2:4, who use this dissimilarity.
    """
    return value_from_sums(value, TRANSFORM, x, y)


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """Return RSA from the sums over centred unit rows."""
    return rsa.value(xx, yy, xy)
