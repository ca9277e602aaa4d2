"""Mutual nearest neighbours, of a subset of the images: do two representations give an image the same neighbours?

Source: Huh et al. 2024, arXiv 2405.07987, section 2 and appendix A, with the 10 neighbours and about 1000 images of its
figures.
"""

import torch
from torch import Tensor

from coupled.metrics.pair._pairs import all_equal, cosine_dissimilarities, upper_triangle
from coupled.metrics.undefined import Undefined

SUBSET = 1000
NEIGHBOURS = 10
RANGE = (0.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("rotation", "permutation", "scale", "row_scale")


def value(x_nD: Tensor, y_nE: Tensor) -> float:
    """Mean over the images of the share of the 10 nearest images by cosine in X that are among those in Y.

    Of equally near images the earlier counts as nearer. By chance it is 10 / (n - 1), so compare values of the same
    `num_images` only. Undefined for fewer than 12 images, where all images are neighbours, and if all pairs of X or of
    Y are equally similar.
    """
    if len(x_nD) < NEIGHBOURS + 2:
        return Undefined(f"fewer than {NEIGHBOURS + 2} images")
    x_nn, y_nn = (cosine_dissimilarities(rows) for rows in (x_nD, y_nE))
    if all_equal(upper_triangle(x_nn)) or all_equal(upper_triangle(y_nn)):
        return Undefined("all pairs of images are equally similar")
    return float((neighbours(x_nn) & neighbours(y_nn)).sum()) / (len(x_nD) * NEIGHBOURS)


def neighbours(pairs_nn: Tensor) -> Tensor:
    """Whether image j is one of the nearest of image i, bool [n, n]."""
    others_nn = pairs_nn.clone().fill_diagonal_(torch.inf)
    nearest_nK = others_nn.argsort(dim=1, stable=True)[:, :NEIGHBOURS]
    return torch.zeros_like(pairs_nn, dtype=torch.bool).scatter_(1, nearest_nK, True)
