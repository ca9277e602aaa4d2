"""Linear CKA from the unbiased HSIC."""

from math import sqrt

from coupled.metrics.pair._arrays import Matrix, value_from_sums
from coupled.metrics.pair._sums import Moments
from coupled.metrics.undefined import Undefined

TRANSFORM = "plain"
RANGE = (-1.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("rotation", "permutation", "scale", "shift")


def cka_debiased(x: Matrix, y: Matrix) -> float:
    """Return linear CKA from the unbiased HSIC.

        HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L)) with K = X X^T, L = Y Y^T
        HSIC_1(K, L) = (tr KL + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'KL1) / (n (n - 3))

    In HSIC_1 the diagonals of K and L are zero, and 1 is the vector of n ones. The expectation of the numerator is 0 if
    the representations are independent, whatever n and D; slightly negative values occur. Use it instead of `cka`
    where n is not much larger than the widths.

    Args:
        x: rows [n, D], one per image: a numpy array, a tensor, or an iterable of blocks of rows. Computed in float64.
        y: rows [n, E] of the same images in the same order; another width and other blocks are allowed.

    Returns:
        The similarity: about 0 for independent representations, 1 for equal ones.
        NaN, whose attribute `reason` says why, if x or y is constant, or for fewer than 4 images.

    Raises:
        ValueError: if one is not 2-D, has fewer than 2 rows or a value that is not finite, or if the numbers of rows or
            the devices differ.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(cka_debiased(x, 3 * x[:, ::-1] + 1), 10)
        1.0

    Source: HSIC_1 is eq. 5 of Song et al. 2012, JMLR 13:1393; Nguyen et al. 2021, arXiv 2010.15327, use it in CKA.
    """
    return value_from_sums(value, TRANSFORM, x, y)


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """Return debiased CKA from the sums."""
    if xy.n < 4:
        return Undefined("fewer than 4 images")
    scale = _hsic_1(xx) * _hsic_1(yy)
    return _hsic_1(xy) / sqrt(scale) if scale > 0 else Undefined("constant features")


def _hsic_1(sums: Moments) -> float:
    """HSIC_1 of the Gram matrices, their diagonals zero.

    It does not change when a constant is added to all rows. For centred rows, a_i = |x_i|^2 and b_i = |y_i|^2 the
    three terms of the definition are  tr KL = ||X^T Y||_F^2 - sum a_i b_i,  1'K1 1'L1 = sum a_i sum b_i  and
    1'KL1 = sum a_i b_i.
    """
    n = sums.n
    trace = float(sums.products_DE.square().sum()) - sums.squares_product
    total = sums.squares[0] * sums.squares[1] / ((n - 1) * (n - 2))
    return (trace + total - 2 / (n - 2) * sums.squares_product) / (n * (n - 3))
