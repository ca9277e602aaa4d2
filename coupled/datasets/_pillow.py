"""Decoding: a picture file -> pixels. By Pillow; torchvision has deprecated its decoders since 0.29.

A file is not trusted: only regular files of known formats are opened, and the size in the header is checked before any
pixel is decoded, so that no picture takes more than about 1 GiB.
"""

import os
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's ImageFolder
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 2**28 // 3  # 256 MiB as RGB
LONGEST_SIDE = 65_535  # the most that a JPEG can have
SHOWN = 3  # bad pictures that a message names
# what Pillow raises for damaged files: the last four for sizes that cannot be and for broken EXIF
DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, TypeError, struct.error, MemoryError)
Image.MAX_IMAGE_PIXELS = None  # `_opened` is stricter: Pillow warns at MOST_PIXELS, and refuses at twice as many


def read_picture(path: Path) -> Tensor:
    """A picture as upright RGB, uint8 [3, H, W]. Raises ValueError if it is damaged, too large or has more than 8 bits.

    Of several pictures in a file it is the first.
    """
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):  # Pillow clips these to white
            raise ValueError(f"{path}: pixels of more than 8 bits ({image.mode}); save it with 8 bits a channel")
        pixels_HW3 = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    return torch.from_numpy(pixels_HW3).permute(2, 0, 1)


def shorter_side(path: Path) -> int:
    """The shorter side of a picture in pixels, from its header. Raises ValueError."""
    with _opened(path) as image:
        return min(image.size)


def undecodable(paths: Iterable[Path]) -> list[str]:
    """What is wrong with each of the pictures; "" if it decodes."""
    return [_fault(path) for path in paths]


def refuse(faults: Sequence[str]) -> None:
    """Raise ValueError with the faults of pictures in one line, unless there are none."""
    if len(faults) == 1:
        raise ValueError(faults[0])
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(f"{len(faults)} pictures cannot be used: {'; '.join(faults[:SHOWN])}{more}")


def _fault(path: Path) -> str:
    try:
        read_picture(path)
    except ValueError as error:
        return str(error)
    return ""


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, not decoded yet; whatever goes wrong within is a ValueError that begins with the path."""
    try:
        # not blocking: to open a FIFO would wait for a writer for ever
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"{path}: not a regular file; remove it")
            with Image.open(file, formats=FORMATS) as image:
                wide, high = image.size
                if wide * high > MOST_PIXELS or max(wide, high) > LONGEST_SIDE:
                    raise ValueError(
                        f"{path}: {wide} x {high} pixels; allowed are {MOST_PIXELS:,}, and {LONGEST_SIDE:,} a side"
                    )
                yield image
    except DAMAGED as error:
        text = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # its text shows the open file, not what is wrong
            text = f"none of {', '.join(FORMATS)}"
        if text.startswith(f"{path}: "):
            raise ValueError(text) from None
        raise ValueError(f"{path}: not a readable image ({text}); mend or remove it") from None
