"""Directional CDNV: the variance of a class along the line to another class, relative to their distance."""

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Labels, Matrix, labelled
from coupled.metrics.arm._classes import classes, squared_distances, why_no_variability
from coupled.metrics.undefined import Undefined

SEES = "split"
DETAILS = ("one_class",)
RANGE = (0.0, float("inf"))
INVARIANCES = ("rotation", "permutation", "scale", "shift", "image_order")


def directional_cdnv(x: Matrix, labels: Labels) -> float:
    """Return the class-distance normalised variance along the lines between class means.

        mean over ordered pairs of classes i != j of Var_i(u.x) / |mu_i - mu_j|^2

    mu_i is the mean of class i, u is the unit vector from mu_j to mu_i, and Var_i the variance over class i. The
    convention is that of `cdnv`, which is an upper bound.

    Args:
        x: rows [N, D], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        labels: the class of each row [N], integers; an array, a list, a tensor, or an iterable of blocks.

    Returns:
        At least 0, at most `cdnv`.
        NaN, whose attribute `reason` says why, for fewer than 2 classes, a class with fewer than 2 images, or two
        classes with the same mean.

    Raises:
        ValueError: if x is not 2-D, has fewer than 2 rows or a value that is not finite, or if the labels are not
            integers or their number is not N.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0, 0], [2, 0], [1, 3], [1, 5]])
        >>> directional_cdnv(x, [0, 0, 1, 1])
        0.03125

    Source: arXiv 2506.04411, proposition 1.
    """
    (measured,) = values(labelled(x, labels)).values()
    return measured.value


def values(images: Labelled) -> dict[str, Measured]:
    """Return directional CDNV under the name of its convention."""
    found = classes(images)
    why = why_no_variability(found)
    if why:
        return {"one_class": Measured(Undefined(why))}
    inverse_CC = squared_distances(found.means_CD).reciprocal().fill_diagonal_(0)
    total = 0.0
    for place, inverse_C in enumerate(inverse_CC):
        deviations_nD = found.deviations_ND[found.place_N == place]
        along_nC = deviations_nD @ (found.means_CD[place] - found.means_CD).T
        total += float(along_nC.square().mean(dim=0) @ inverse_C.square())
    return {"one_class": Measured(total / (len(inverse_CC) * (len(inverse_CC) - 1)))}
