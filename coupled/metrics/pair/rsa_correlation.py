"""RSA with correlation distance: do two representations find the same pairs of images alike?

Source: Kriegeskorte et al. 2008, Frontiers in Systems Neuroscience 2:4, whose dissimilarity this is.
"""

from coupled.metrics.pair import rsa
from coupled.metrics.pair._sums import Moments

TRANSFORM = "unit_centred"
RANGE = (-1.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("permutation", "scale", "row_scale", "row_shift")  # a rotation does not keep the mean of the features


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """Pearson correlation, over all pairs of images, of one minus the Pearson correlation of their rows.

    That is `rsa` of rows less their own mean. A row of equal entries counts as uncorrelated with every other. Undefined
    if all pairs of X or all pairs of Y are equally similar, or for fewer than 3 images.
    """
    return rsa.value(xx, yy, xy)
