"""Augmentation spread: variance of the augmented views of an image relative to all views; 0 is full invariance."""

from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.metrics.arm import Measured
from coupled.metrics.arm._arrays import Matrix, rows_on_cpu
from coupled.metrics.undefined import Undefined

SEES = "views"
DETAILS = ("relative",)
RANGE = (0.0, 2.0)
INVARIANCES = ("rotation", "permutation", "scale", "shift", "image_order")


def augmentation_spread(views: Tensor | NDArray[Any] | Iterable[Matrix]) -> float:
    """Return the variance of the augmented views of an image relative to the variance of all views.

        mean_n (sum_v |x_vn - mean_v x_vn|^2 / (V - 1)) / mean_vn |x_vn - mean_vn x_vn|^2

    x_vn is view v of image n. The result is 0 for full invariance to augmentation.

    Args:
        views: V augmented views of the same N images [V, N, D]: a numpy array, a tensor on the CPU, or an iterable of V
            arrays [N, D].

    Returns:
        0 for full invariance, about 1 if views of an image are no more similar than views of different images.
        NaN, whose attribute `reason` says why, if the features are constant.

    Raises:
        ValueError: for fewer than 2 views, views of different shapes, a view that is not 2-D, has fewer than 2 rows or
            a value that is not finite.

    Example:
        >>> augmentation_spread([[[0.0], [2.0]], [[0.0], [2.0]]])
        0.0

    Source: defined here; it follows no paper.
    """
    dimensions = getattr(views, "ndim", 3)
    if dimensions != 3:
        raise ValueError(f"views: expected [views, images, features], found {dimensions}-D")
    rows = [rows_on_cpu(view, f"views[{v}]") for v, view in enumerate(views)]
    if len(rows) < 2:
        raise ValueError(f"views: {len(rows)} view; at least 2 are needed")
    for v, view_ND in enumerate(rows):
        if view_ND.shape != rows[0].shape:
            raise ValueError(f"views[{v}]: shape {tuple(view_ND.shape)}, views[0] has {tuple(rows[0].shape)}")
    (measured,) = values(torch.stack(rows)).values()
    return measured.value


def values(views_VND: Tensor) -> dict[str, Measured]:
    """Return the spread of views."""
    views_VND = views_VND.double() - views_VND[0, 0]
    total = (views_VND - views_VND.mean(dim=(0, 1))).square().sum(2).mean()
    if total == 0:
        return {"relative": Measured(Undefined("constant features"))}
    within = views_VND.var(dim=0, correction=1).sum(1).mean()
    return {"relative": Measured(float(within / total))}
