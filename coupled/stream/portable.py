"""exp, log, cos, sin with the same bits on every machine: only single IEEE operations, such as additions.

Those of NumPy and torch may differ in the last bit between machines, and even between positions of an array.
"""

import math
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = TypeVar("Numbers", NDArray[np.float64], Tensor)


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


def portable_log(x: Numbers, terms: int = 16) -> Numbers:
    """Return the natural logarithm of an array or a tensor; that of 0 is a large negative number.

    For x = m 2^e with m in [1/2, 1) it is e log 2 + 2 artanh((m - 1) / (m + 1)), artanh by `terms` terms of its power
    series: 16 are exact to float64's precision, and 8 to float32's.
    """
    mantissa, exponent = torch.frexp(x) if isinstance(x, Tensor) else np.frexp(x)
    ratio = (mantissa - 1) / (mantissa + 1)
    square = ratio * ratio
    series = square * (1 / (2 * terms - 1)) + 1 / (2 * terms - 3)
    for k in range(terms - 2, 0, -1):
        series = series * square + 1 / (2 * k - 1)
    result: Numbers = ratio * 2 * series + exponent * math.log(2)
    return result


def portable_normal(draw: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return two independent standard normal numbers from two uniform ones, multiples of 2^-32 in [0, 1).

    Source: Box & Muller 1958.
    """
    radius = np.sqrt(portable_log(draw + 2.0**-33) * -2)
    cos, sin = portable_cos_sin(other * 360)
    return radius * cos, radius * sin
