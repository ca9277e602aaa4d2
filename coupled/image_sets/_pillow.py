"""Decoding: a picture file -> pixels. By Pillow; torchvision has deprecated its decoders since 0.29."""

import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

# what Pillow raises for damaged files: the last three for sizes that cannot be and for broken EXIF
DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, TypeError, struct.error)


def read_picture(path: Path) -> Tensor:
    """A picture as upright RGB, uint8 [3, H, W]. Raises ValueError if it is damaged or has more than 8 bits."""
    try:
        with Image.open(path) as image:
            mode = image.mode
            pixels_HW3 = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except DAMAGED as error:
        raise ValueError(f"{path}: not a readable image ({error}); mend or remove it") from None
    if mode.startswith(("I", "F")):  # Pillow clips these to white
        raise ValueError(f"{path}: pixels of more than 8 bits ({mode}); save it with 8 bits a channel")
    return torch.from_numpy(pixels_HW3).permute(2, 0, 1)
