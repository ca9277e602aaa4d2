"""Orthogonal Procrustes similarity: how well a rotation maps one representation to the other."""

from math import sqrt

import torch

from coupled.metrics.pair._arrays import Matrix, value_from_sums
from coupled.metrics.pair._sums import Moments, equal_rows
from coupled.metrics.undefined import Undefined

TRANSFORM = "plain"
RANGE = (0.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("rotation", "permutation", "scale", "shift")


def procrustes(x: Matrix, y: Matrix) -> float:
    """Return the orthogonal Procrustes similarity: how well a rotation maps one representation to the other.

        ||X^T Y||_* / (||X||_F ||Y||_F) of centred X [n, D], Y [n, E]

    ||.||_* is the sum of the singular values. With X and Y scaled to norm 1, the minimum of ||X - Y Q||_F^2 over
    orthogonal Q is 2 - 2 * similarity, and the minimum of ||X - s Y Q||_F^2 over Q and s is 1 - similarity^2.

    Args:
        x: rows [n, D], one per image: a numpy array, a tensor, or an iterable of blocks of rows. Computed in float64.
        y: rows [n, E] of the same images in the same order; another width and other blocks are allowed.

    Returns:
        The similarity, between 0 and 1: 1 if a rotation, a scale and a shift turn one into the other.
        NaN, whose attribute `reason` says why, if x or y is constant over the images.

    Raises:
        ValueError: if one is not 2-D, has fewer than 2 rows or a value that is not finite, or if the numbers of rows or
            the devices differ.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> round(procrustes(x, 3 * x[:, ::-1] + 1), 10)
        1.0

    Source: Schoenemann 1966, Psychometrika 31:1; Ding et al. 2021, arXiv 2108.01661, for its use on representations.
    """
    return value_from_sums(value, TRANSFORM, x, y)


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """Return the Procrustes similarity from the sums."""
    scale = xx.squares[0] * yy.squares[0]
    if scale == 0:
        return Undefined("constant features")
    if equal_rows(xx, yy, xy):
        return 1.0  # singular values would give 1 up to rounding
    return float(torch.linalg.svdvals(xy.products_DE).sum()) / sqrt(scale)
