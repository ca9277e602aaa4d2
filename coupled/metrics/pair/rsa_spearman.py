"""RSA with rank correlation, of a subset of the images.

Source: Kriegeskorte et al. 2008, Frontiers in Systems Neuroscience 2:4; Spearman 1904, average ranks for ties.
"""

from math import sqrt

import torch
from torch import Tensor

from coupled.metrics.pair._pairs import all_equal, cosine_dissimilarities, upper_triangle
from coupled.metrics.undefined import Undefined

SUBSET = 1000
RANGE = (-1.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("rotation", "permutation", "scale", "row_scale")


def value(x_nD: Tensor, y_nE: Tensor) -> float:
    """Spearman correlation, over the n (n-1) / 2 pairs of images, of the cosine dissimilarities of X and Y.

    Dissimilarities that agree to 12 digits of the largest share a rank. A row of zeros counts as unlike every other
    (cosine 0). Undefined if all pairs of X or all pairs of Y are equally similar: constant features, or fewer than 3
    images.
    """
    if len(x_nD) < 3:
        return Undefined("fewer than 3 images")
    x_P, y_P = (upper_triangle(cosine_dissimilarities(rows)) for rows in (x_nD, y_nE))
    if all_equal(x_P) or all_equal(y_P):
        return Undefined("all pairs of images are equally similar")
    x_P, y_P = centred_ranks(x_P), centred_ranks(y_P)
    return float(x_P @ y_P) / sqrt(float(x_P @ x_P) * float(y_P @ y_P))


def centred_ranks(values_P: Tensor) -> Tensor:
    """Ranks less their mean, float64; equal values share the mean of their ranks."""
    _, place_P, count_U = torch.unique(values_P, return_inverse=True, return_counts=True)
    rank_U = count_U.cumsum(0).double() - (count_U - 1) / 2  # of integers: CUDA sums floats in no fixed order
    return rank_U[place_P] - (len(values_P) + 1) / 2
