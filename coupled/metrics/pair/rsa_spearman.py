"""RSA with rank correlation, on a subset of the images."""

from math import sqrt

import torch
from torch import Tensor

from coupled.metrics.pair._arrays import Matrix, value_from_rows
from coupled.metrics.pair._pairs import all_equal, cosine_dissimilarities, upper_triangle
from coupled.metrics.undefined import Undefined

SUBSET = 1000
RANGE = (-1.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("rotation", "permutation", "scale", "row_scale")


def rsa_spearman(x: Matrix, y: Matrix) -> float:
    """Return the rank correlation of the pairwise cosine dissimilarities of two representations (RSA).

        corr over pairs i < j of rank(1 - cos(x_i, x_j)) and rank(1 - cos(y_i, y_j))

    This is the Spearman correlation over all n (n - 1) / 2 pairs of rows of X [n, D] and Y [n, E]. Dissimilarities that
    agree to 12 digits of the largest share a rank, the mean of their ranks. A row of zeros has cosine 0 with every
    other.

    Args:
        x: rows [n, D], one per image: a numpy array, a tensor, or an iterable of blocks of rows. Computed in float64,
            with memory for several n x n matrices; `coupled alignment` uses a seeded subset of 1000 images.
        y: rows [n, E] of the same images in the same order; another width and other blocks are allowed.

    Returns:
        Spearman correlation of the cosine dissimilarities of all pairs of images, between -1 and 1.
        NaN, whose attribute `reason` says why, if all pairs of x or of y are equally similar, or for fewer than 3
        images.

    Raises:
        ValueError: if one is not 2-D, has fewer than 2 rows or a value that is not finite, or if the numbers of rows or
            the devices differ.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(rsa_spearman(x, 3 * x[:, ::-1]), 10)
        1.0

    Source: Kriegeskorte et al. 2008, Frontiers in Systems Neuroscience 2:4; Spearman 1904, average ranks for ties.
    """
    return value_from_rows(value, x, y)


def value(x_nD: Tensor, y_nE: Tensor) -> float:
    """Return RSA with rank correlation of all rows at once."""
    if len(x_nD) < 3:
        return Undefined("fewer than 3 images")
    x_P, y_P = (upper_triangle(cosine_dissimilarities(rows)) for rows in (x_nD, y_nE))
    if all_equal(x_P) or all_equal(y_P):
        return Undefined("all pairs of images are equally similar")
    x_P, y_P = centred_ranks(x_P), centred_ranks(y_P)
    return float(x_P @ y_P) / sqrt(float(x_P @ x_P) * float(y_P @ y_P))


def centred_ranks(values_P: Tensor) -> Tensor:
    """Return ranks minus their mean, float64; equal values share the mean of their ranks."""
    _, place_P, count_U = torch.unique(values_P, return_inverse=True, return_counts=True)
    rank_U = count_U.cumsum(0).double() - (count_U - 1) / 2  # of integers: CUDA's float sums vary
    return rank_U[place_P] - (len(values_P) + 1) / 2
