"""Class-distance normalised variance: how far the images of a class scatter, against how far apart the classes are.

Source: Galanti et al. 2022, arXiv 2112.15121; the convention is that of proposition 1 of arXiv 2506.04411.
"""

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._classes import classes, squared_distances, variances, why_no_variability
from coupled.metrics.undefined import Undefined

SEES = "split"
DETAILS = ("one_class",)
RANGE = (0.0, float("inf"))


def values(images: Labelled) -> dict[str, Measured]:
    """Mean over ordered pairs of classes i != j of v_i / |mu_i - mu_j|^2; v_i = mean of |x - mu_i|^2 over class i.

    One class' variance a pair, hence `one_class`. The mean over unordered pairs of (v_i + v_j) / (2 |mu_i - mu_j|^2),
    the halved sum of the literature, is the same number; that of the unhalved sum is twice it. Undefined for fewer
    than 2 classes, a class with fewer than 2 images, or two classes with the same mean.
    """
    found = classes(images)
    why = why_no_variability(found)
    if why:
        return {"one_class": Measured(Undefined(why))}
    variances_C = variances(found)
    inverse_CC = squared_distances(found.means_CD).reciprocal().fill_diagonal_(0)
    pairs = len(variances_C) * (len(variances_C) - 1)
    return {"one_class": Measured(float(variances_C @ inverse_CC.sum(1)) / pairs)}
