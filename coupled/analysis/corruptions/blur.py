"""Blur: of a lens out of focus, frosted glass, motion and zoom. Shape letters: S side of the image, C channels."""

from functools import lru_cache
from math import ceil, cos, hypot, radians, sin

import numpy as np
import torch
from scipy.ndimage import correlate1d, gaussian_filter
from scipy.signal import fftconvolve
from torch.nn.functional import interpolate

from coupled.analysis.corruptions.draws import Array, Draws

GREY = 255


def defocus_blur(image_SS3: Array, draws: Draws, radius: float, sigma: float) -> Array:
    """Convolve with a disk whose edge is smoothed; the border is mirrored. Uses no random numbers."""
    kernel = _disk(radius, sigma)
    half = len(kernel) // 2
    padded = np.pad(image_SS3, ((half, half), (half, half), (0, 0)), mode="reflect")
    blurred: Array = fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1))
    return blurred


def glass_blur(image_SS3: Array, draws: Draws, sigma: float, distance: int, passes: int) -> Array:
    """Blur, replace each pixel by a random one nearby, and blur again.

    The pixels are replaced one after the other, from the last row and column on, so a pixel can move far. The authors
    mean to swap two pixels; their program copies one over the other, as here.
    """
    side = len(image_SS3)
    pixels = np.floor(GREY * gaussian(image_SS3, sigma) + 1e-6) / GREY
    line = np.arange(side - distance, distance, -1)
    target = (line[:, None] * side + line).ravel()
    source = list(range(side * side))  # of each pixel
    for _ in range(passes):
        right, down = draws.integers(-distance, distance, 2, len(target))
        for one, other in zip(target.tolist(), (target + down * side + right).tolist(), strict=True):
            source[one] = source[other]
    return gaussian(pixels.reshape(-1, 3)[source].reshape(image_SS3.shape), sigma)


def motion_blur(image_SS3: Array, draws: Draws, radius: float, sigma: float) -> Array:
    """Blur along a line of a random angle from -45 to 45 degrees; the result is rounded to grey levels."""
    blurred = moved(image_SS3, radius, sigma, float(draws.uniform(low=-45, high=45)))
    return np.floor(GREY * blurred + 0.5) / GREY


def zoom_blur(image_SS3: Array, draws: Draws, end: float, step: float) -> Array:
    """Return the mean of the image and its magnifications by the factors 1, 1 + step, ... Uses no random numbers."""
    zoomed = [image_SS3, *(clipped_zoom(image_SS3, factor) for factor in np.arange(1, end, step).tolist())]
    return np.mean(zoomed, axis=0)


def gaussian(image_SS3: Array, sigma: float) -> Array:
    """Blur with a Gaussian cut at 4 sigma; the border is repeated. As `gaussian` of scikit-image."""
    blurred: Array = gaussian_filter(image_SS3, (sigma, sigma, 0), mode="nearest", truncate=4.0)
    return blurred


def moved(image_SSC: Array, radius: float, sigma: float, angle: float) -> Array:
    """Blur along a line from each pixel, with half a Gaussian; the border is repeated. ImageMagick's motion blur.

    Weight k of K = 2 radius + 1 belongs to the pixel at a distance of k in the direction of `angle`, in degrees.
    """
    count = 2 * ceil(radius) + 1
    weights = np.exp(-(np.arange(count) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    along, across = count * cos(radians(angle)), count * sin(radians(angle))
    length, side = hypot(along, across), len(image_SSC)
    padded = np.pad(image_SSC, ((count, count), (count, count), (0, 0)), mode="edge")
    blurred = np.zeros_like(image_SSC)
    for k, weight in enumerate(weights.tolist()):
        right, down = (count + ceil(k * each / length - 0.5) for each in (along, across))
        blurred += weight * padded[down : down + side, right : right + side]
    return blurred


def clipped_zoom(image_SSC: Array, factor: float) -> Array:
    """Magnify the centre bilinearly to the size of the image, with corners on corners as scipy's `zoom`."""
    side = len(image_SSC)
    part = ceil(side / factor)
    top, size = (side - part) // 2, round(part * factor)
    inner = torch.from_numpy(np.ascontiguousarray(image_SSC[top : top + part, top : top + part]))
    large = interpolate(inner.permute(2, 0, 1)[None], size=(size, size), mode="bilinear", align_corners=True)[0]
    cut = (size - side) // 2
    zoomed: Array = large.permute(1, 2, 0).numpy()[cut : cut + side, cut : cut + side]
    return zoomed


@lru_cache
def _disk(radius: float, sigma: float) -> Array:
    """Return the kernel of the disk, smoothed by a Gaussian of 3 x 3 pixels, or 5 x 5 above a radius of 8."""
    half, taps = (8, 3) if radius <= 8 else (int(radius), 5)
    line = np.arange(-half, half + 1)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float64)
    weights = np.exp(-((np.arange(taps) - taps // 2) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        disk = correlate1d(disk, weights / weights.sum(), axis=axis, mode="mirror")
    used = np.flatnonzero(disk.any(axis=0))
    kernel: Array = disk[used[0] : used[-1] + 1, used[0] : used[-1] + 1]
    return kernel / (line[:, None] ** 2 + line**2 <= radius**2).sum()
