"""Digital corruptions: contrast, elastic transform, pixelation, JPEG. Shape letters: S side of the image."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

from coupled.analysis.corruptions.draws import Array, Draws

GREY = 255


def contrast(image_SS3: Array, draws: Draws, factor: float) -> Array:
    """Move all values towards the mean of their colour."""
    means: Array = image_SS3.mean(axis=(0, 1))
    return (image_SS3 - means) * factor + means


def elastic_transform(image_SS3: Array, draws: Draws, displacement: float, sigma: float, corners: float) -> Array:
    """Apply a random affine map, then move each pixel by smooth random displacements; bilinear, border mirrored.

    The arguments are shares of the side. The affine map moves three points, at a third of the side around the centre,
    by uniform numbers of up to `corners`. The authors use OpenCV's affine map, which rounds positions to 1/32 pixel.
    """
    side = len(image_SS3)
    centre, third = side // 2, side // 3
    points_32 = np.array([(third, third), (third, -third), (-third, -third)], dtype=np.float64) + centre  # x, y
    moved_32 = points_32 + draws.uniform(3, 2, low=-1, high=1) * corners * side
    back_32 = np.linalg.solve(np.column_stack([moved_32, np.ones(3)]), points_32)  # (x, y, 1) -> position before
    matrix, offset = back_32[:2, ::-1].T[:, ::-1], back_32[2, ::-1]  # the same for (row, column)
    fields = [
        displacement * side * gaussian_filter(draws.uniform(side, side, low=-1, high=1), sigma * side, truncate=3)
        for _ in ("columns", "rows")
    ]
    rows, columns = np.mgrid[:side, :side]
    places = [rows + fields[1], columns + fields[0]]
    colours = []
    for colour in np.moveaxis(image_SS3, 2, 0):
        mapped = affine_transform(colour, matrix, offset, order=1, mode="mirror")
        colours.append(map_coordinates(mapped, places, order=1, mode="reflect"))
    return np.stack(colours, axis=2)


def pixelate(image_SS3: Array, draws: Draws, factor: float) -> Array:
    """Shrink the image and enlarge it again with box filters, by Pillow."""
    side = len(image_SS3)
    small = max(1, int(side * factor))
    picture = Image.fromarray(_bytes(image_SS3)).resize((small, small), Image.Resampling.BOX)
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX)) / GREY


def jpeg_compression(image_SS3: Array, draws: Draws, quality: int) -> Array:
    """Compress the image as JPEG and decode it, by Pillow; other versions of libjpeg may give other pixels."""
    data = io.BytesIO()
    Image.fromarray(_bytes(image_SS3)).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data)) / GREY


def _bytes(image_SS3: Array) -> NDArray[np.uint8]:
    return np.rint(GREY * image_SS3).astype(np.uint8)
