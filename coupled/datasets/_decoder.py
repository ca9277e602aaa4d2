"""Decode an image file into pixels, with Pillow; torchvision has deprecated its decoders since 0.29.

A file is not trusted: only regular files of known formats are opened, and the size in the header is checked before any
pixel is decoded, so that no image takes more than about 1 GiB.

As a program it decodes for another process. Each line of stdin is a JSON list of paths. For each path it writes three
numbers to stdout (height, width, bytes of a message), then the pixels or the message. It imports only Pillow and numpy,
and nothing of this package, so that it starts fast.
"""

import json
import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 2**28 // 3  # 256 MiB as RGB
LONGEST_SIDE = 65_535  # the limit of JPEG
HEADER = struct.Struct("<QQQ")  # height, width, bytes of a message
# raised by Pillow for damaged files; the last four for impossible sizes and broken EXIF
DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, TypeError, struct.error, MemoryError)
Image.MAX_IMAGE_PIXELS = None  # `opened` is stricter: Pillow warns at MOST_PIXELS, and raises at twice as many


def read_pixels(path: Path | str) -> NDArray[np.uint8]:
    """An image as upright RGB, uint8 [H, W, 3]. Raises ValueError if it is damaged, too large or has more than 8 bits.

    If a file has several images, the first one is read.
    """
    with opened(path) as image:
        if image.mode.startswith(("I", "F")):  # Pillow clips these to white
            raise ValueError(f"{path}: pixels of more than 8 bits ({image.mode}); save it with 8 bits a channel")
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def shorter_side(path: Path | str) -> int:
    """The shorter side of an image in pixels, from its header. Raises ValueError."""
    with opened(path) as image:
        return min(image.size)


@contextmanager
def opened(path: Path | str) -> Iterator[Image.Image]:
    """Open an image without decoding it. Errors inside the `with` block become ValueErrors that begin with the path."""
    try:
        # not blocking: opening a FIFO would wait for a writer
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"{path}: not a regular file; remove it")
            with Image.open(file, formats=FORMATS) as image:
                wide, high = image.size
                if wide * high > MOST_PIXELS or max(wide, high) > LONGEST_SIDE:
                    raise ValueError(
                        f"{path}: {wide} x {high} pixels; allowed are {MOST_PIXELS:,}, and {LONGEST_SIDE:,} per side"
                    )
                yield image
    except DAMAGED as error:
        text = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # Pillow's text shows the file object, not the fault
            text = f"none of {', '.join(FORMATS)}"
        if text.startswith(f"{path}: "):
            raise ValueError(text) from None
        raise ValueError(f"{path}: not a readable image ({text}); repair or remove it") from None


def _serve() -> None:
    """Decode the files that stdin lists, until stdin is closed."""
    for line in sys.stdin.buffer:
        for name in json.loads(line):
            try:
                pixels_HW3 = np.ascontiguousarray(read_pixels(name))
                sys.stdout.buffer.write(HEADER.pack(*pixels_HW3.shape[:2], 0) + pixels_HW3.tobytes())
            except ValueError as error:
                text = str(error).encode("utf-8", "surrogatepass")
                sys.stdout.buffer.write(HEADER.pack(0, 0, len(text)) + text)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
