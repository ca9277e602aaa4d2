"""Linear CKA, the biased estimate (Kornblith et al. 2019, arXiv 1905.00414, section 3)."""

from math import sqrt

from coupled.metrics.pair._sums import Moments
from coupled.metrics.undefined import Undefined

TRANSFORM = "plain"
RANGE = (0.0, 1.0)
DIRECTION = "higher"
INVARIANCES = ("rotation", "permutation", "scale", "shift")


def value(xx: Moments, yy: Moments, xy: Moments) -> float:
    """||X^T Y||_F^2 / (||X^T X||_F ||Y^T Y||_F) of centred X [n, D], Y [n, E].

    Equal to <K, L> / (||K|| ||L||) of the centred Gram matrices. For few images and wide features it is far above 0
    even if the representations are independent: see `cka_debiased`. Undefined if X or Y is constant over the images.
    """
    scale = squared_norm(xx) * squared_norm(yy)
    return squared_norm(xy) / sqrt(scale) if scale > 0 else Undefined("constant features")


def squared_norm(sums: Moments) -> float:
    """||X^T Y||_F^2 of centred X, Y: the inner product of their centred Gram matrices."""
    return float(sums.products_DE.square().sum())
