"""The random numbers of one corrupted image: a function of the seed, the corruption, its severity and the image."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from coupled.stream.seeds import philox

Array = NDArray[np.float64]


class Draws:
    """Successive random numbers of one image, which depend on no other image, arm or device."""

    def __init__(self, seed: int, name: str, severity: int, image: int) -> None:
        self.generator = philox(seed, f"analysis/corruption/{name}", severity, image)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Array:
        """Return uniform numbers between `low` and `high`, without both ends; 53 random bits each."""
        raw = self.generator.random_raw(math.prod(shape))
        unit: Array = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return low + (high - low) * unit.reshape(shape)

    def normal(self, *shape: int) -> Array:
        """Return standard normal numbers, by inversion."""
        found: Array = ndtri(self.uniform(*shape))
        return found

    def integers(self, low: int, high: int, *shape: int) -> NDArray[np.int64]:
        """Return integers from `low` to `high` - 1."""
        return np.floor(self.uniform(*shape, low=low, high=high)).astype(np.int64)
