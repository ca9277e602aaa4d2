"""exp, cos and sin with the same bits on every machine: they use only additions and multiplications.

Those of NumPy and torch may differ in the last bit between machines, and even between positions of an array.
"""

import numpy as np
from numpy.typing import NDArray


def portable_exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(x) for x <= 1, with a relative error below 1e-12.

    Computed as (exp(x / 1024))^1024, the inner exp by its power series. The exact bits matter: a crop whose size
    differs in the last bit can be one pixel wider.
    """
    small = np.maximum(x, -80.0) * 2.0**-10
    result = np.ones_like(small)
    for k in range(8, 0, -1):
        result = 1 + result * (small * (1 / k))
    for _ in range(10):
        result = result * result
    return result


def portable_cos_sin(degrees: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return cosine and sine of angles from -360 to 360 degrees, with an error below 1e-11.

    Computed as (exp(i x / 1024))^1024 for the angle x in radians: the inner exp by its power series, squared ten times.
    """
    small = degrees * (np.pi / 180 / 1024)
    square = small * small
    cos, sin = np.ones_like(small), np.ones_like(small)
    for k in range(4, 0, -1):
        cos = 1 - cos * (square * (1 / (2 * k * (2 * k - 1))))
        sin = 1 - sin * (square * (1 / (2 * k * (2 * k + 1))))
    sin = sin * small
    for _ in range(10):
        cos, sin = cos * cos - sin * sin, 2 * (cos * sin)
    return cos, sin
