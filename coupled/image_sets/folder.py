"""Images from folders, one a class: root/train/<class>/*.png and root/test/<class>/*.png (or root/val/...).

Files ending in .png, .jpg, .jpeg or .webp are images; hidden files and folders are passed over. Classes and images are
taken in the order of their names. They are decoded by Pillow: torchvision is giving up its decoders.
Shape letters: N images, S size.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from coupled.image_sets import ImageSet, channel_statistics, check_range, check_split

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
STATISTICS_IMAGES = 4096  # enough: a mean over so many images errs by 1/64 of the spread between images


def load(split: str, *, root: Path | None = None, size: int = 64) -> ImageSet:
    """The images of root/train or root/test (else root/val), as RGB, shorter side scaled to `size`, centre square.

    Mean and std are those of the train images: of all up to 4096, of 4096 evenly spaced ones if there are more.
    Raises ValueError for a missing folder, an empty class, classes that differ between the splits, and an image that
    cannot be decoded.
    """
    check_split(split)
    check_range("size", size, 8, 4096)
    if root is None:
        raise ValueError("image_set.root: missing; give the folder that holds train/<class>/ and test/<class>/")
    files = {"train": _files(root / "train"), "test": _files(_test_folder(root))}
    if list(files["train"]) != list(files["test"]):
        odd = ", ".join(sorted(set(files["train"]) ^ set(files["test"])))
        raise ValueError(f"image_set.root: {root}: train and test must have the same classes; only one has {odd}")

    paths = {name: [path for of_class in classes.values() for path in of_class] for name, classes in files.items()}
    images_N3SS = _read(paths[split], size)
    measured = np.linspace(
        0, len(paths["train"]), min(len(paths["train"]), STATISTICS_IMAGES), endpoint=False, dtype=int
    )
    mean, std = channel_statistics(
        images_N3SS[measured] if split == "train" else _read([paths["train"][row] for row in measured], size)
    )
    return ImageSet(
        name="folder",
        split=split,
        images_N3HW=images_N3SS,
        labels_N=torch.tensor([label for label, of_class in enumerate(files[split].values()) for _ in of_class]),
        class_names=tuple(files[split]),
        mean=mean,
        std=std,
    )


def _test_folder(root: Path) -> Path:
    return root / "val" if (root / "val").is_dir() and not (root / "test").is_dir() else root / "test"


def _files(folder: Path) -> dict[str, list[Path]]:
    """Class name -> paths of its images, both sorted."""
    if not folder.is_dir():
        raise ValueError(f"image_set.root: there is no folder {folder.resolve()}; put <class>/<image> files in it")
    classes = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not classes:
        raise ValueError(f"image_set.root: {folder.resolve()} holds no class; make one folder of images a class")
    files = {name: sorted(filter(_is_image, (folder / name).iterdir())) for name in classes}
    for name, paths in files.items():
        if not paths:
            kinds = ", ".join(SUFFIXES)
            raise ValueError(f"image_set.root: {(folder / name).resolve()} holds no image; put {kinds} files in it")
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _read(paths: list[Path], size: int) -> Tensor:
    """The pictures as uint8 [N, 3, S, S]; Pillow decodes in several threads, which changes nothing but the time."""
    images_N3SS = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:
        for row, image_3SS in enumerate(pool.map(partial(_read_one, size=size), paths)):
            images_N3SS[row] = image_3SS
    return images_N3SS


def _read_one(path: Path, size: int) -> Tensor:
    try:
        with Image.open(path) as image:
            mode = image.mode
            pixels_HW3 = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # the three that Pillow raises for damaged files
        raise ValueError(f"{path}: not a readable image ({error}); mend or remove it") from None
    if mode.startswith(("I", "F")):  # Pillow clips these to white
        raise ValueError(f"{path}: pixels of more than 8 bits ({mode}); save it with 8 bits a channel")
    image_3HW = torch.from_numpy(pixels_HW3).permute(2, 0, 1)
    return center_crop(resize(image_3HW, [size], antialias=True), [size, size])
