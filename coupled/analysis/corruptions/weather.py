"""Weather: snow, frost, fog and brightness. Shape letters: S side of the image."""

import hashlib
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coupled.analysis.corruptions.blur import GREY, clipped_zoom, moved
from coupled.analysis.corruptions.constants import INSTALL, PACKAGE, PHOTOGRAPHS, photographs_folder
from coupled.analysis.corruptions.draws import Array, Draws

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue
MARGIN = 1.1  # of the enlarged photograph over the image
PHOTOGRAPHS_SHA256 = "c146cff9eab2397f71c47ee7c727e2f8a36cf7445b8daf1dad63a0ce34140861"  # of the five files, joined


def snow(
    image_SS3: Array,
    draws: Draws,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    share: float,
) -> Array:
    """Whiten the image, and add flakes and the same flakes turned by 180 degrees.

    Flakes are normal numbers above a threshold, magnified, rounded to grey levels and blurred in a random direction
    from -135 to -45 degrees.
    """
    flakes = clipped_zoom(mean + deviation * draws.normal(*image_SS3.shape[:2], 1), zoom)
    flakes = np.floor(GREY * np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)) / GREY
    flakes = np.floor(GREY * moved(flakes, radius, sigma, float(draws.uniform(low=-135, high=-45))) + 0.5) / GREY
    grey_SS1 = image_SS3 @ np.array(LUMA)[:, None]
    whitened = share * image_SS3 + (1 - share) * np.maximum(image_SS3, 1.5 * grey_SS1 + 0.5)
    snowed: Array = whitened + flakes + np.rot90(flakes, 2)
    return snowed


def frost(image_SS3: Array, draws: Draws, share: float, of_frost: float, step: int) -> Array:
    """Add a random part of a random photograph of frost: share * image + of_frost * frost.

    `step` = 5 takes every fifth pixel of the photograph, which is the authors' bilinear scaling by 0.2 by OpenCV. A
    photograph that is not larger than the image, which their programs do not allow, is enlarged to 1.1 times its side.
    """
    side = len(image_SS3)
    frost_HW3 = photographs()[int(draws.integers(0, len(PHOTOGRAPHS)))][step // 2 :: step, step // 2 :: step]
    height, width = frost_HW3.shape[:2]
    if min(height, width) <= side:
        factor = MARGIN * side / min(height, width)
        size = (ceil(width * factor), ceil(height * factor))
        frost_HW3 = np.asarray(Image.fromarray(frost_HW3).resize(size, Image.Resampling.BILINEAR))
    top, left = (int(draws.integers(0, length - side)) for length in frost_HW3.shape[:2])
    return share * image_SS3 + of_frost * frost_HW3[top : top + side, left : left + side] / GREY


@lru_cache
def photographs() -> tuple[NDArray[np.uint8], ...]:
    """Return the photographs of frost, uint8 [height, width, 3], without their transparency.

    Raises:
        ValueError: if the package with the photographs is not installed, or has other files.
    """
    folder = photographs_folder()
    if folder is None:
        raise ValueError(f"frost needs the photographs of {PACKAGE}, which is not installed: {INSTALL}")
    paths = [folder / name for name in PHOTOGRAPHS]
    if hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest() != PHOTOGRAPHS_SHA256:
        raise ValueError(f"{folder}: photographs of frost other than those of {PACKAGE} 1.1.2: {INSTALL}==1.1.2")
    return tuple(np.asarray(Image.open(path).convert("RGB")) for path in paths)


def fog(image_SS3: Array, draws: Draws, amount: float, decay: float) -> Array:
    """Add a height map of the diamond-square algorithm, and scale to the brightest value of the image."""
    brightest = image_SS3.max()
    fogged: Array = image_SS3 + amount * _height_map(len(image_SS3), decay, draws)[:, :, None]
    return fogged * brightest / (brightest + amount)


def brightness(image_SS3: Array, draws: Draws, added: float) -> Array:
    """Add to the value of HSV, the largest of the three colours, and keep hue and saturation."""
    value_SS1 = image_SS3.max(axis=2, keepdims=True)
    brighter = np.minimum(value_SS1 + added, 1)
    return np.where(value_SS1 > 0, image_SS3 * brighter / np.where(value_SS1 > 0, value_SS1, 1), brighter)


def _height_map(side: int, decay: float, draws: Draws) -> Array:
    """Return a random map [S, S] that is cut out of one from 0 to 1, whose side is the next power of 2.

    Each new point is the mean of its four neighbours, around the border, plus a * U(-a, a); a is 100, and is divided
    by `decay` after each halving of the step.
    """
    size = 1 << (side - 1).bit_length()
    heights, step, scale = np.zeros((size, size)), size, 100.0

    def displaced(*neighbours: Array) -> Array:
        return sum(neighbours) / 4 + scale * draws.uniform(*neighbours[0].shape, low=-scale, high=scale)

    while step >= 2:
        half = step // 2
        corners, centres = heights[::step, ::step], heights[half::step, half::step]
        beside, below = np.roll(corners, -1, axis=1), np.roll(corners, -1, axis=0)
        centres[:] = displaced(corners, beside, below, np.roll(below, -1, axis=1))
        heights[::step, half::step] = displaced(corners, beside, centres, np.roll(centres, 1, axis=0))
        heights[half::step, ::step] = displaced(corners, below, centres, np.roll(centres, 1, axis=1))
        step, scale = half, scale / decay
    heights -= heights.min()
    return (heights / heights.max())[:side, :side]
