"""Class-distance normalised variance (CDNV): the variance within a class relative to the distance between classes."""

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Labels, Matrix, labelled
from coupled.metrics.arm._classes import classes, squared_distances, variances, why_no_variability
from coupled.metrics.undefined import Undefined

SEES = "split"
DETAILS = ("one_class",)
RANGE = (0.0, float("inf"))
INVARIANCES = ("rotation", "permutation", "scale", "shift", "image_order")


def cdnv(x: Matrix, labels: Labels) -> float:
    """Return the class-distance normalised variance: variance within classes relative to their distances.

        mean over ordered pairs of classes i != j of v_i / |mu_i - mu_j|^2

    mu_i is the mean of class i, and v_i the mean of |x - mu_i|^2 over class i. Each pair uses the variance of one
    class, hence the name `one_class` in the CSV file. The mean over unordered pairs of
    (v_i + v_j) / (2 |mu_i - mu_j|^2) in the literature is the same number; without the factor 2 it is twice as large.

    Args:
        x: rows [N, D], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        labels: the class of each row [N], integers; an array, a list, a tensor, or an iterable of blocks.

    Returns:
        The variance of a class divided by the squared distance to another, mean over ordered pairs of classes; 0 or
        more.
        NaN, whose attribute `reason` says why, for fewer than 2 classes, a class with fewer than 2 images, or two
        classes with the same mean.

    Raises:
        ValueError: if x is not 2-D, has fewer than 2 rows or a value that is not finite, or if the labels are not
            integers or their number is not N.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0, 0], [2, 0], [1, 3], [1, 5]])
        >>> cdnv(x, [0, 0, 1, 1])
        0.0625

    Source: Galanti et al. 2022, arXiv 2112.15121; the convention is that of proposition 1 of arXiv 2506.04411.
    """
    (measured,) = values(labelled(x, labels)).values()
    return measured.value


def values(images: Labelled) -> dict[str, Measured]:
    """Return CDNV under the name of its convention."""
    found = classes(images)
    why = why_no_variability(found)
    if why:
        return {"one_class": Measured(Undefined(why))}
    variances_C = variances(found)
    inverse_CC = squared_distances(found.means_CD).reciprocal().fill_diagonal_(0)
    pairs = len(variances_C) * (len(variances_C) - 1)
    return {"one_class": Measured(float(variances_C @ inverse_CC.sum(1)) / pairs)}
