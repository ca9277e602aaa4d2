"""Noise: Gaussian, shot (Poisson) and impulse noise. Shape letters: S side of the image."""

from functools import lru_cache
from math import sqrt

import numpy as np
from scipy.special import pdtr

from coupled.analysis.corruptions.draws import Array, Draws

LEVELS = 256  # grey levels of an image


def gaussian_noise(image_SS3: Array, draws: Draws, deviation: float) -> Array:
    """Add independent normal numbers to all values."""
    return image_SS3 + deviation * draws.normal(*image_SS3.shape)


def shot_noise(image_SS3: Array, draws: Draws, photons: float) -> Array:
    """Replace each value x by a Poisson number of mean photons * x, divided by photons; by inversion."""
    level_SS3 = np.rint((LEVELS - 1) * image_SS3).astype(np.int64)
    table = _cumulative(photons)
    found = np.searchsorted(table.ravel(), level_SS3 + draws.uniform(*image_SS3.shape))
    counts: Array = (found - level_SS3 * table.shape[1]) / photons
    return counts


def impulse_noise(image_SS3: Array, draws: Draws, share: float) -> Array:
    """Set a share of the values to 0 or 1, each with probability 1/2."""
    changed_SS3, high_SS3 = draws.uniform(*image_SS3.shape) < share, draws.uniform(*image_SS3.shape) < 0.5
    return np.where(changed_SS3, high_SS3.astype(np.float64), image_SS3)


@lru_cache
def _cumulative(photons: float) -> Array:
    """Return the Poisson distribution functions of all grey levels [level, count], each plus its level.

    So all of them together ascend, and one search inverts them.
    """
    level = np.arange(LEVELS)[:, None]
    counts = np.arange(int(photons + 12 * sqrt(photons)) + 20)
    table: Array = level + pdtr(counts, photons * level / (LEVELS - 1))
    return table
