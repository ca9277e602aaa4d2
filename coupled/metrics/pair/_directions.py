"""Principal directions of a representation and canonical correlations of two, from the sums of one pass.

Shape letters: D and E widths, K and L numbers of principal directions, M = min(K, L) canonical correlations.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from coupled.metrics.pair._sums import Moments
from coupled.metrics.undefined import Undefined

FLOOR = 1e-10  # share of the largest variance; a direction with less variance is a rounding error of float32 features


class Directions(NamedTuple):
    """The principal directions of centred rows, largest variance first."""

    vectors_DK: Tensor
    roots_K: Tensor  # singular values of the centred rows


class Canonical(NamedTuple):
    """Canonical correlations, largest first, and the canonical variates of x in its principal directions."""

    correlations_M: Tensor
    variates_KM: Tensor
    x: Directions


def directions(xx: Moments, share: float = 1.0) -> Directions:
    """Return the fewest principal directions with `share` of the variance; never those below `FLOOR`."""
    variances_D, vectors_DD = torch.linalg.eigh(xx.products_DE)
    variances_D, vectors_DD = variances_D.flip(0), vectors_DD.flip(1)
    count = int((variances_D > FLOOR * variances_D[0]).sum())
    if share < 1:
        count = min(count, 1 + int((variances_D.cumsum(0) < share * variances_D.sum()).sum()))
    return Directions(vectors_DD[:, :count], variances_D[:count].sqrt())


def canonical(xx: Moments, yy: Moments, xy: Moments, share: float = 1.0) -> Canonical | Undefined:
    """Return the canonical correlations of the principal directions with `share` of the variance.

    They are undefined for constant features, and if both numbers of directions add up to more than n - 1: then some
    correlations are 1 for any data.
    """
    if xx.squares[0] == 0 or yy.squares[0] == 0:
        return Undefined("constant features")
    x, y = directions(xx, share), directions(yy, share)
    if len(x.roots_K) + len(y.roots_K) > xy.n - 1:
        return Undefined("fewer images than directions of both representations")
    between_KL = x.vectors_DK.T @ xy.products_DE @ y.vectors_DK / x.roots_K[:, None] / y.roots_K
    variates_KM, correlations_M, _ = torch.linalg.svd(between_KL, full_matrices=False)
    return Canonical(correlations_M.clamp(max=1), variates_KM, x)


def explained(xx: Moments, yy: Moments, products_DE: Tensor) -> float:
    """Return the share of the variance of y that least squares with a bias explain from x; `products_DE` is X^T Y.

    It is undefined for constant features, and if x has n - 1 directions or more, from which any y is fitted exactly.
    """
    if xx.squares[0] == 0 or yy.squares[0] == 0:
        return Undefined("constant features")
    x = directions(xx)
    if len(x.roots_K) >= xx.n - 1:
        return Undefined("no more images than directions to predict from")
    fitted_KE = x.vectors_DK.T @ products_DE / x.roots_K[:, None]
    return min(1.0, float(fitted_KE.square().sum()) / yy.squares[0])
