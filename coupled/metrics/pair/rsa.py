"""Representational similarity analysis (RSA): correlation of the pairwise dissimilarities of two representations."""

from math import sqrt

from coupled.metrics.pair._arrays import Matrix, value_from_sums
from coupled.metrics.pair._sums import Moments
from coupled.metrics.undefined import Undefined

TRANSFORM = "unit"
RANGE = (-1.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("rotation", "permutation", "scale", "row_scale")


def rsa(x: Matrix, y: Matrix) -> float:
    """Return the correlation of the pairwise cosine dissimilarities of two representations (RSA).

        corr over pairs i < j of (1 - cos(x_i, x_j)) and (1 - cos(y_i, y_j))

    corr is the Pearson correlation over all n (n - 1) / 2 pairs of rows of X [n, D] and Y [n, E]. A row of zeros has
    cosine 0 with every other, as in torch's `cosine_similarity`. It is exact over all pairs in one pass, without an
    n x n matrix.

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
        >>> round(rsa(x, 3 * x[:, ::-1]), 10)
        1.0

    Source: Kriegeskorte et al. 2008, Frontiers in Systems Neuroscience 2:4; cosine dissimilarity and Pearson
    correlation as in arXiv 2510.08852.
    """
    return value_from_sums(value, TRANSFORM, x, y)


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """Return RSA from the sums over unit rows."""
    if xy.n < 3:
        return Undefined("fewer than 3 images")
    scale = covariance(xx) * covariance(yy)
    return covariance(xy) / sqrt(scale) if scale > 0 else Undefined("all pairs of images are equally similar")


def covariance(sums: Moments) -> float:
    """n (n-1) times the covariance over pairs i != j of s_ij = u_i.u_j and t_ij = v_i.v_j, for unit rows u, v.

    With u_i = p + x_i, v_i = q + y_i and p, q the means, s_ij - |p|^2 = x_i.x_j + p.x_i + p.x_j. Over all i, j these
    sum to 0; on the diagonal they are |x_i|^2 + 2 p.x_i. This form avoids cancellation for rows with a large mean,
    unlike sum s_ij t_ij - sum s_ij sum t_ij / (n (n-1)).
    """
    n, (p_D, q_E) = sums.n, sums.means
    mixed = p_D @ sums.products_DE @ q_E
    everywhere = sums.products_DE.square().sum() + 2 * n * mixed
    diagonal = sums.squares_product + 2 * (p_D @ sums.thirds[0] + sums.thirds[1] @ q_E) + 4 * mixed
    means = sums.squares[0] * sums.squares[1] / (n * (n - 1))
    return float(everywhere - diagonal) - means
