"""What the sets of picture files share: which files a folder holds, decoding, and an image set made of them.

Files ending in .png, .jpg, .jpeg or .webp are images; hidden files and folders are passed over. Classes and images are
taken in the order of their names.
Shape letters: N images, S size.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from coupled.image_sets import ImageSet, channel_statistics
from coupled.image_sets._pillow import read_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
STATISTICS_IMAGES = 4096  # enough: a mean over so many images errs by 1/64 of the spread between images

Files = Mapping[str, Sequence[Path]]  # class name -> its images


def load_files(name: str, split: str, files: Mapping[str, Files], root: Path, size: int) -> ImageSet:
    """The images of `files[split]`, as RGB, shorter side scaled to `size`, centre square; labels in the files' order.

    Mean and std are those of the train images: of all up to 4096, of 4096 evenly spaced ones if there are more.
    Raises ValueError for classes that differ between the splits and an image that cannot be decoded.
    """
    if list(files["train"]) != list(files["test"]):
        odd = ", ".join(sorted(set(files["train"]) ^ set(files["test"])))
        raise ValueError(f"image_set.root: {root}: train and test must have the same classes; only one has {odd}")
    paths = {part: [path for of_class in classes.values() for path in of_class] for part, classes in files.items()}
    images_N3SS = read(paths[split], size)
    measured = np.linspace(
        0, len(paths["train"]), min(len(paths["train"]), STATISTICS_IMAGES), endpoint=False, dtype=int
    )
    mean, std = channel_statistics(
        images_N3SS[measured] if split == "train" else read([paths["train"][row] for row in measured], size)
    )
    return ImageSet(
        name=name,
        split=split,
        images_N3HW=images_N3SS,
        labels_N=torch.tensor([label for label, of_class in enumerate(files[split].values()) for _ in of_class]),
        class_names=tuple(files[split]),
        mean=mean,
        std=std,
    )


def class_files(folder: Path) -> dict[str, list[Path]]:
    """Class name -> paths of its images, both sorted; they lie in folder/<class> or in folder/<class>/images.

    Raises ValueError if the folder is missing or a class has no image.
    """
    if not folder.is_dir():
        raise ValueError(f"image_set.root: there is no folder {folder.resolve()}; put <class>/<image> files in it")
    classes = folders(folder)
    if not classes:
        raise ValueError(f"image_set.root: {folder.resolve()} holds no class; make one folder of images a class")
    files = {}
    for name in classes:
        inner = folder / name / "images"
        files[name] = images(inner if inner.is_dir() else folder / name)
        if not files[name]:
            kinds = ", ".join(SUFFIXES)
            raise ValueError(f"image_set.root: {(folder / name).resolve()} holds no image; put {kinds} files in it")
    return files


def folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted."""
    return sorted(each.name for each in folder.iterdir() if not each.name.startswith(".") and each.is_dir())


def images(folder: Path) -> list[Path]:
    """The images in `folder`, sorted."""
    return sorted(filter(_is_image, folder.iterdir()))


def read_lines(path: Path, separator: str) -> list[list[str]]:
    """The cells of the lines of a text file that are not empty. Raises ValueError if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable ({error}); unpack it again") from None
    return [[cell.strip() for cell in line.split(separator)] for line in lines if line.strip()]


def read(paths: Sequence[Path], size: int) -> Tensor:
    """The pictures as uint8 [N, 3, S, S]; Pillow decodes in several threads, which changes nothing but the time."""
    images_N3SS = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:
        for row, image_3SS in enumerate(pool.map(partial(read_square, size=size), paths)):
            images_N3SS[row] = image_3SS
    return images_N3SS


def read_square(path: Path, size: int) -> Tensor:
    """The largest central square of a picture, `size` pixels a side, uint8 [3, S, S]. Raises ValueError."""
    return center_crop(resize(read_picture(path), [size], antialias=True), [size, size])


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
