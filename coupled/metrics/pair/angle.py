"""Representation angle: the angle between the centred Gram matrices of two representations."""

from math import acos, degrees

from coupled.metrics.pair import cka
from coupled.metrics.pair._arrays import Matrix, value_from_sums
from coupled.metrics.pair._sums import Moments, equal_rows
from coupled.metrics.undefined import Undefined

TRANSFORM = "plain"
RANGE = (0.0, 90.0)
DIRECTION = "lower"
INVARIANCES = ("rotation", "permutation", "scale", "shift")


def angle(x: Matrix, y: Matrix) -> float:
    """Return the angle in degrees between the centred Gram matrices of two representations.

        arccos of <K, L>_F / (||K||_F ||L||_F) with K = X X^T, L = Y Y^T of centred X [n, D], Y [n, E]

    This is arccos of linear `cka`, and what the figure `angles` shows for CKA: the counterpart of the angle between the
    weights of two arms, with Gram matrices as vectors. A small angle a is precise to about 1e-12 / a degrees.

    Args:
        x: rows [n, D], one per image: a numpy array, a tensor, or an iterable of blocks of rows. Computed in float64.
        y: rows [n, E] of the same images in the same order; another width and other blocks are allowed.

    Returns:
        The angle in degrees, between 0 and 90: 0 if they are equal up to rotation, scale and shift.
        NaN, whose attribute `reason` says why, if x or y is constant over the images.

    Raises:
        ValueError: if one is not 2-D, has fewer than 2 rows or a value that is not finite, or if the numbers of rows or
            the devices differ.

    Example:
        >>> import numpy as np
        >>> x, y = np.eye(4)[:, :2], np.eye(4)[:, 1:3]
        >>> angle(x, x), round(angle(x, y), 6)
        (0.0, 53.130102)

    Source: arXiv 2510.08852 states a representation angle of 27.8 degrees without a formula; it is arccos of the
    alignment of .885. CKA as a cosine: Cortes et al. 2012, JMLR 13:795, definition 4.
    """
    return value_from_sums(value, TRANSFORM, x, y)


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """Return the angle from the sums."""
    cosine = cka.value(xx, yy, xy)
    if isinstance(cosine, Undefined):
        return cosine
    return 0.0 if equal_rows(xx, yy, xy) else degrees(acos(min(1.0, cosine)))
