"""Read images as tensors, and report those that cannot be decoded."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from coupled.datasets._decoder import read_pixels

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision's ImageFolder
SHOWN = 3  # images that a message names


def read_picture(path: Path) -> Tensor:
    """An image as upright RGB, uint8 [3, H, W]. Raises ValueError if it is damaged, too large or has more than 8 bits.

    If a file has several images, the first one is read.
    """
    return torch.from_numpy(read_pixels(path)).permute(2, 0, 1)


def undecodable(paths: Iterable[Path]) -> list[str]:
    """The fault of each image; "" if it can be decoded."""
    return [_fault(path) for path in paths]


def refuse(faults: Sequence[str]) -> None:
    """Raise ValueError with the faults of images in one line, if there are any."""
    if len(faults) == 1:
        raise ValueError(faults[0])
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise ValueError(f"{len(faults)} images cannot be decoded: {'; '.join(faults[:SHOWN])}{more}")


def _fault(path: Path) -> str:
    try:
        read_picture(path)
    except ValueError as error:
        return str(error)
    return ""
