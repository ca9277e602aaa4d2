"""The mean root of the class-distance normalised variance, a term of the few-shot bound.

Source: arXiv 2506.04411, proposition 1.
"""

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._classes import classes, squared_distances, variances, why_no_variability
from coupled.metrics.undefined import Undefined

SEES = "split"
DETAILS = ("one_class",)
RANGE = (0.0, float("inf"))


def values(images: Labelled) -> dict[str, Measured]:
    """Mean over ordered pairs of classes i != j of sqrt(v_i) / |mu_i - mu_j|; v_i = mean of |x - mu_i|^2 over class i.

    Its square is at most the `cdnv` of the same convention. Undefined where that is.
    """
    found = classes(images)
    why = why_no_variability(found)
    if why:
        return {"one_class": Measured(Undefined(why))}
    variances_C = variances(found)
    inverse_CC = squared_distances(found.means_CD).rsqrt().fill_diagonal_(0)
    pairs = len(variances_C) * (len(variances_C) - 1)
    return {"one_class": Measured(float(variances_C.sqrt() @ inverse_CC.sum(1)) / pairs)}
