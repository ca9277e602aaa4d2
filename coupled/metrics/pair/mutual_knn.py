"""Mutual k-nearest neighbours: overlap of the neighbours of images in two representations, on a subset."""

import torch
from torch import Tensor

from coupled.metrics.pair._arrays import Matrix, check_at_least, value_from_rows
from coupled.metrics.pair._pairs import all_equal, cosine_dissimilarities, upper_triangle
from coupled.metrics.undefined import Undefined

SUBSET = 1000
NEIGHBOURS = 10
RANGE = (0.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("rotation", "permutation", "scale", "row_scale")


def mutual_knn(x: Matrix, y: Matrix, *, k: int = NEIGHBOURS) -> float:
    """Return the share of the k nearest images that two representations have in common.

        mean over images i of |N_X(i) & N_Y(i)| / k

    N_X(i) are the k images that are nearest to image i by cosine in X [n, D], N_Y(i) those in Y [n, E]. In a tie the
    image with the lower index is nearer. The chance level is k / (n - 1), so compare values of the same n only.

    Args:
        x: rows [n, D], one per image: a numpy array, a tensor, or an iterable of blocks of rows. Computed in float64,
            with memory for several n x n matrices; `coupled alignment` uses a seeded subset of 1000 images.
        y: rows [n, E] of the same images in the same order; another width and other blocks are allowed.
        k: number of neighbours of an image that are compared; `coupled alignment` uses 10.

    Returns:
        The share of the nearest neighbours in common, between 0 and 1.
        NaN, whose attribute `reason` says why, for fewer than k + 2 images, or if all pairs of x or of y are equally
        similar.

    Raises:
        ValueError: if one is not 2-D, has fewer than 2 rows or a value that is not finite, or if the numbers of rows or
            the devices differ; if k is less than 1.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> mutual_knn(x, 3 * x[:, ::-1], k=5)
        1.0

    Source: Huh et al. 2024, arXiv 2405.07987, section 2 and appendix A; 10 neighbours and about 1000 images as in its
    figures.
    """
    check_at_least(k, 1, "k")
    return value_from_rows(lambda x_nD, y_nE: value(x_nD, y_nE, k), x, y)


def value(x_nD: Tensor, y_nE: Tensor, k: int = NEIGHBOURS) -> float:
    """Return the share of common neighbours of all rows at once."""
    if len(x_nD) < k + 2:
        return Undefined(f"fewer than {k + 2} images")
    x_nn, y_nn = (cosine_dissimilarities(rows) for rows in (x_nD, y_nE))
    if all_equal(upper_triangle(x_nn)) or all_equal(upper_triangle(y_nn)):
        return Undefined("all pairs of images are equally similar")
    return float((neighbours(x_nn, k) & neighbours(y_nn, k)).sum()) / (len(x_nD) * k)


def neighbours(pairs_nn: Tensor, k: int) -> Tensor:
    """Whether image j is one of the k nearest of image i, bool [n, n]."""
    others_nn = pairs_nn.clone().fill_diagonal_(torch.inf)
    nearest_nK = others_nn.argsort(dim=1, stable=True)[:, :k]
    return torch.zeros_like(pairs_nn, dtype=torch.bool).scatter_(1, nearest_nK, True)
