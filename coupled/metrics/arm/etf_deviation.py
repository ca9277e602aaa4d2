"""Deviation of the class means from a simplex equiangular tight frame, the second property of neural collapse."""

import torch

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Labels, Matrix, labelled
from coupled.metrics.arm._classes import classes
from coupled.metrics.undefined import Undefined

SEES = "split"
DETAILS = ("frobenius",)
RANGE = (0.0, 2**0.5)
INVARIANCES = ("rotation", "permutation", "scale", "shift", "image_order")


def etf_deviation(x: Matrix, labels: Labels) -> float:
    """Return the deviation of the class means from a simplex equiangular tight frame.

        || M M^T / ||M M^T||_F - (I - 1/C) / sqrt(C - 1) ||_F

    M [C, D] are the C class means minus their mean. The deviation is 0 if and only if they have equal norms and equal
    angles.

    Args:
        x: rows [N, D], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        labels: the class of each row [N], integers; an array, a list, a tensor, or an iterable of blocks.

    Returns:
        0 if all class means, after their mean is subtracted, have equal norms and equal angles.
        NaN, whose attribute `reason` says why, for fewer than 2 classes, or if all class means are the same.

    Raises:
        ValueError: if x is not 2-D, has fewer than 2 rows or a value that is not finite, or if the labels are not
            integers or their number is not N.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0, 0], [2, 0], [1, 3], [1, 5]])
        >>> round(etf_deviation(x, [0, 0, 1, 1]), 10)
        0.0

    Source: Papyan, Han, Donoho 2020, arXiv 2008.08186; the number is NC2 of Zhu et al. 2021, arXiv 2105.02375.
    """
    (measured,) = values(labelled(x, labels)).values()
    return measured.value


def values(images: Labelled) -> dict[str, Measured]:
    """Return the deviation of the class means."""
    means_CD = classes(images).means_CD
    count = len(means_CD)
    if count < 2:
        return {"frobenius": Measured(Undefined("fewer than 2 classes"))}
    gram_CC = means_CD @ means_CD.T
    if not gram_CC.any():
        return {"frobenius": Measured(Undefined("all classes have the same mean"))}
    frame_CC = (torch.eye(count, dtype=torch.float64) - 1 / count) / (count - 1) ** 0.5
    return {"frobenius": Measured(float((gram_CC / gram_CC.norm() - frame_CC).norm()))}
