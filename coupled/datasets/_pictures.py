"""Decode image files to one size, and make a dataset of them.

Shape letters: N images, S size.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from coupled.datasets import ImageDataset, ImageFiles, _cache, channel_statistics, say, tracked_count
from coupled.datasets._decoding import decoded
from coupled.datasets._files import Files, check_same_classes, class_names, labels, names_below, passed_over
from coupled.datasets._pillow import refuse

STATISTICS_IMAGES = 4096  # the error of the mean over 4096 images is 1/64 of the standard deviation between images
LONGEST = 16  # images with a larger ratio of sides are cropped before they are resized, to bound the memory


def load_files(
    name: str, split: str, files: Mapping[str, Files], root: Path, size: int, passed: Mapping[str, int] | None = None
) -> ImageDataset:
    """The images of `files[split]`, as RGB, shorter side scaled to `size`, centre square; labels in the files' order.

    Mean and std are those of the train images: of all up to 4096, of 4096 evenly spaced ones if there are more.
    `passed` counts the ignored files. Raises ValueError for classes that differ between the splits, and for images
    that cannot be decoded; one message names those of the split.
    """
    check_same_classes(root, files["train"], files["test"], ("train", "test"))
    paths = {part: [path for of_class in classes.values() for path in of_class] for part, classes in files.items()}
    images_N3SS, sides_N = read(paths[split], size)
    measured = _measured(len(paths["train"]))
    mean, std = channel_statistics(
        images_N3SS[measured] if split == "train" else read([paths["train"][row] for row in measured], size)[0]
    )
    return ImageDataset(
        name=name,
        split=split,
        images_N3HW=images_N3SS,
        labels_N=torch.tensor(labels(files[split])),
        class_names=class_names(files[split]),
        mean=mean,
        std=std,
        files_N=names_below(root, files[split]),
        notes=(*passed_over(split, passed or {}), *(enlarged(split, sides_N, size) if split == "train" else ())),
    )


def list_files(
    name: str, split: str, files: Mapping[str, Files], root: Path, size: int, passed: Mapping[str, int]
) -> ImageFiles:
    """The images of `files[split]`, left on the disk; mean, std and errors as of `load_files`."""
    check_same_classes(root, files["train"], files["test"], ("train", "test"))
    train = [path for of_class in files["train"].values() for path in of_class]
    mean, std = channel_statistics(read([train[row] for row in _measured(len(train))], size)[0])
    return ImageFiles(
        name=name,
        split=split,
        root=root,
        files_N=names_below(root, files[split]),
        labels_N=torch.tensor(labels(files[split])),
        class_names=class_names(files[split]),
        mean=mean,
        std=std,
        notes=tuple(passed_over(split, passed)),
    )


def _measured(images: int) -> NDArray[np.int64]:
    """The numbers of the train images from which mean and std are computed."""
    return np.linspace(0, images, min(images, STATISTICS_IMAGES), endpoint=False, dtype=np.int64)


def enlarged(split: str, sides_N: Sequence[int], size: int) -> Iterator[str]:
    """Describe the enlarged images in one line, if there are any."""
    smaller = [side for side in sides_N if side < size]
    if smaller:
        yield (
            f"dataset.image_size: {len(smaller)} of {len(sides_N)} {split} images are enlarged to {size} px; their"
            f" shorter side is {min(smaller)} px or more"
        )


def read(paths: Sequence[str], size: int) -> tuple[Tensor, list[int]]:
    """The images as uint8 [N, 3, S, S] and the original shorter side of each; from the cache if they are in it.

    Raises ValueError that names the images that cannot be decoded.
    """
    if 3 * size**2 * len(paths) < _cache.SMALLEST or not _cache.most_bytes():
        return _decode(paths, size)
    try:
        key = _cache.key_of(paths, size)
    except OSError:
        return _decode(paths, size)  # raises an error that names the fault of the file
    kept = _cache.read_entry(key, len(paths), size)
    if kept:
        return kept
    with _cache.alone(key):
        if kept := _cache.read_entry(key, len(paths), size):  # another process has decoded them meanwhile
            return kept
        images_N3SS, sides_N = _decode(paths, size)
        try:
            if _cache.key_of(paths, size) == key:  # no file has changed while the images were decoded
                _cache.write_entry(key, images_N3SS, sides_N)
        except OSError as error:
            say(
                f"{_cache.cache_folder()}: {error.strerror}; images are not cached; the next start decodes them again",
                sys.stderr,
            )
        return images_N3SS, sides_N


def _decode(paths: Sequence[str], size: int) -> tuple[Tensor, list[int]]:
    """Decode the files on all cores that this process may use: many images in processes, few in threads."""
    images_N3SS = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    sides_N, faults = [], []
    with closing(decoded(paths, partial(_shown, size=size))) as results:
        for row, found in enumerate(tracked_count(results, len(paths), "decoding images")):
            if isinstance(found, str):
                faults.append(found)
            else:
                images_N3SS[row] = found[0]
                sides_N.append(found[1])
    refuse(faults)
    return images_N3SS, sides_N


def _shown(pixels_HW3: NDArray[np.uint8], size: int) -> tuple[Tensor, int]:
    """An image at the size of the dataset, and its original shorter side."""
    return square(torch.from_numpy(pixels_HW3).permute(2, 0, 1), size), min(pixels_HW3.shape[:2])


def square(picture_3HW: Tensor, size: int) -> Tensor:
    """The largest central square of an image, `size` pixels a side, uint8 [3, S, S]."""
    high, wide = picture_3HW.shape[1:]
    if high == wide == size:
        return picture_3HW
    longest = LONGEST * min(high, wide)
    cut_3HW = center_crop(picture_3HW, [min(high, longest), min(wide, longest)])
    return center_crop(resize(cut_3HW, [size], antialias=True), [size, size])
