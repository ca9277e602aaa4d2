"""Means and deviations of classes. Shape letters: N images, D width, C classes that have images."""

from typing import NamedTuple

import torch
from torch import Tensor

from coupled.metrics.arm import Labelled


class Classes(NamedTuple):
    """Statistics of classes, float64. The mean of the class means is subtracted, so a large mean costs no precision."""

    labels_C: Tensor  # ascending
    counts_C: Tensor
    place_N: Tensor  # index of each image's class in labels_C
    means_CD: Tensor
    deviations_ND: Tensor  # rows minus the mean of their class
    centre_D: Tensor  # the subtracted mean of the class means


def classes(images: Labelled) -> Classes:
    """Return the statistics of the classes of labelled rows."""
    labels_C, place_N, counts_C = torch.unique(images.labels_N, return_inverse=True, return_counts=True)
    first_D = images.rows_ND[0].double()
    rows_ND = images.rows_ND.double() - first_D
    sums_CD = rows_ND.new_zeros(len(labels_C), rows_ND.shape[1]).index_add_(0, place_N, rows_ND)
    means_CD = sums_CD / counts_C[:, None]
    centre_D = means_CD.mean(dim=0)
    return Classes(labels_C, counts_C, place_N, means_CD - centre_D, rows_ND - means_CD[place_N], first_D + centre_D)


def variances(found: Classes) -> Tensor:
    """Return v_i, the mean of |x - mu_i|^2 over the images of class i [C]."""
    sums_C = found.deviations_ND.new_zeros(len(found.labels_C))
    return sums_C.index_add_(0, found.place_N, found.deviations_ND.square().sum(1)).div_(found.counts_C)


def why_no_variability(found: Classes) -> str:
    """Return why the class-distance normalised variance is undefined; "" if it is defined."""
    if len(found.labels_C) < 2:
        return "fewer than 2 classes"
    if int(found.counts_C.min()) < 2:
        return f"class {int(found.labels_C[found.counts_C.argmin()])} has fewer than 2 images"
    if float(squared_distances(found.means_CD).fill_diagonal_(1).min()) == 0:
        return "two classes have the same mean"
    return ""


def squared_distances(rows_CD: Tensor) -> Tensor:
    """Return |a - b|^2 of every two rows [C, C]; the distance of equal rows is exactly 0."""
    return torch.cdist(rows_CD, rows_CD, compute_mode="donot_use_mm_for_euclid_dist").square()
