"""Fractals: a procedural dataset. Each class is an iterated function system, each image a variation of it in colour.

Any number of classes at any size is generated (about 2 000 images of 32 px per second on one core) and kept under
`root`. Everything is a function of (seed, class, split, image): class k does not depend on the number of classes, and
image i does not depend on the number of images. Neither depends on the machine.

Shape letters: N images of a split, I images of a class, M maps, S size, K chunk of images.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from coupled.datasets import ImageDataset, _ifs, channel_statistics, check_range, check_split, tensors_digest

SIZE = 32
FORMAT = "coupled.fractals.1"  # increased when the same options give other pixels
MAPS_STREAM, WALK_STREAM, TRAIN_STREAM, TEST_STREAM = range(4)  # streams of random bits of a class
POINTS_AT_ONCE = 2_000_000  # bounds the memory of a chunk to about 150 MB


def load(
    split: str,
    *,
    root: Path | None = None,
    classes: int = 10,
    image_size: int = SIZE,
    train_per_class: int = 500,
    test_per_class: int = 100,
    seed: int = 0,
) -> ImageDataset:
    """`classes` fractals (2 to 1000) at `image_size` px (8 or more), from `root` (default data/fractals) or generated.

    Raises ValueError for an option out of range, and for a file under `root` that is damaged or has other content.
    """
    check_split(split)
    check_range("classes", classes, 2, 1000)
    check_range("image_size", image_size, 8, 1024)
    check_range("train_per_class", train_per_class, 1)
    check_range("test_per_class", test_per_class, 1)
    check_range("seed", seed, 0, 2**64 - 1)
    options = f"{classes}_classes_{train_per_class}+{test_per_class}_images_{image_size}px_seed{seed}"
    path = (root or Path("data/fractals")) / f"{options}.safetensors"
    per_class = {"train": train_per_class, "test": test_per_class}
    if not path.exists():
        _write(path, options, {name: draw(name, classes, count, image_size, seed) for name, count in per_class.items()})
    images = _read(path, options)
    mean, std = channel_statistics(images["train"])
    return ImageDataset(
        name="fractals",
        split=split,
        images_N3HW=images[split],
        labels_N=torch.arange(classes).repeat_interleave(per_class[split]),
        class_names=tuple(f"fractal_{klass:03d}" for klass in range(classes)),
        mean=mean,
        std=std,
    )


def draw(split: str, classes: int, per_class: int, size: int, seed: int) -> Tensor:
    """The images of a split as uint8 [N, 3, S, S], class by class."""
    pictures = [_draw_class(split, klass, per_class, size, seed) for klass in range(classes)]
    return torch.from_numpy(np.concatenate(pictures))


def _draw_class(split: str, klass: int, count: int, size: int, seed: int) -> np.ndarray:
    maps_M6 = _ifs.class_system(_bits(seed, klass, MAPS_STREAM))
    # By area, so that an attractor is covered evenly; a map that flattens the image to a line still gets a share.
    weights_M = abs(_ifs.determinants(maps_M6)) + 0.02
    choices_TW = _ifs.choices(weights_M, _bits(seed, klass, WALK_STREAM), size)
    bits = _bits(seed, klass, TRAIN_STREAM if split == "train" else TEST_STREAM)
    numbers_IR = _ifs.uniform(bits.random_raw((count, 9 * _ifs.MAPS + 4)))
    chunk = max(1, POINTS_AT_ONCE // choices_TW.size)
    parts = np.split(numbers_IR, range(chunk, count, chunk))
    return np.concatenate([_picture(maps_M6, choices_TW, numbers_KR, size) for numbers_KR in parts])


def _picture(maps_M6: np.ndarray, choices_TW: np.ndarray, numbers_KR: np.ndarray, size: int) -> np.ndarray:
    """Images [K, 3, S, S]: maps and colours from R = 9 M + 4 uniform numbers an image."""
    jitter_KR, colour_KR, ground_K3, negative_K1 = np.split(
        numbers_KR, (6 * _ifs.MAPS, 9 * _ifs.MAPS, 9 * _ifs.MAPS + 3), axis=1
    )
    counts_KMSS = _ifs.visits(_ifs.jittered(maps_M6, jitter_KR), choices_TW, size)
    total_K1SS = counts_KMSS.sum(axis=1, keepdims=True)
    bright_KM3 = 0.3 + 0.7 * colour_KR.reshape(-1, _ifs.MAPS, 3)
    dark_K3SS = 0.3 * ground_K3[:, :, None, None]
    # A pixel mixes the colours of the maps that led to it; the more visits, the less of the background is visible.
    ink_K3SS = np.zeros((len(numbers_KR), 3, size, size))
    for each in range(_ifs.MAPS):
        ink_K3SS += counts_KMSS[:, each, None] * bright_KM3[:, each, :, None, None]
    ink_K3SS /= np.maximum(total_K1SS, 1)
    picture_K3SS = dark_K3SS + (ink_K3SS - dark_K3SS) * (total_K1SS / (total_K1SS + 2))
    negative_K111 = negative_K1[:, :, None, None] < 0.5  # dark on bright, so that brightness is not a cue to the class
    return np.rint(255 * np.where(negative_K111, 1 - picture_K3SS, picture_K3SS)).astype(np.uint8)


def _bits(seed: int, klass: int, stream: int) -> np.random.Philox:
    # Only `random_raw` is used, which is the same in every version of NumPy.
    return np.random.Philox(key=np.array([seed, klass], np.uint64), counter=np.array([0, 0, 0, stream], np.uint64))


def _write(path: Path, options: str, images: dict[str, Tensor]) -> None:
    """Write the file completely or not at all, also if several processes write it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": FORMAT, "options": options, "digest": _digest(images)}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        save_file(images, unfinished, metadata)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)


def _read(path: Path, options: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            images = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error}); delete it, it will be generated again") from None
    found, wanted = (metadata.get("format"), metadata.get("options")), (FORMAT, options)
    if found != wanted:
        raise ValueError(f"{path}: holds {found}, expected {wanted}; delete it, it will be generated again")
    if metadata.get("digest") != _digest(images):
        raise ValueError(f"{path}: damaged (its pixels do not match its digest); delete it, it will be generated again")
    return images


def _digest(images: dict[str, Tensor]) -> str:
    empty_0 = torch.empty(0, dtype=torch.int64)
    return " ".join(f"{name} {tensors_digest(images[name], empty_0)}" for name in sorted(images))
