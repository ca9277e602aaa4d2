"""What CIFAR-10 and CIFAR-100 share: reading torchvision's folder, whose files' md5 sums torchvision checks."""

from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10

from coupled.image_sets import ImageSet, channel_statistics, check_split


def load_cifar(name: str, kind: type[CIFAR10], split: str, root: Path | None, download: bool) -> ImageSet:
    """The image set `name` from the folder `kind.base_folder` below `root` (default data).

    Raises ValueError if the folder is missing, damaged, or cannot be fetched.
    """
    check_split(split)
    root = root or Path("data")
    images_of = {}
    for part in ("train", "test") if split == "test" else ("train",):  # train always: mean and std come from it
        try:
            found = kind(str(root), train=part == "train", download=download)
        except (RuntimeError, OSError) as error:
            raise ValueError(_missing(kind, root, download, error)) from None
        images_of[part] = torch.from_numpy(np.ascontiguousarray(found.data.transpose(0, 3, 1, 2)))
    mean, std = channel_statistics(images_of["train"])
    return ImageSet(
        name=name,
        split=split,
        images_N3HW=images_of[split],
        labels_N=torch.tensor(found.targets, dtype=torch.int64),
        class_names=tuple(found.classes),
        mean=mean,
        std=std,
    )


def _missing(kind: type[CIFAR10], root: Path, download: bool, error: Exception) -> str:
    folder = root / kind.base_folder
    if download:
        return f"image_set.download: fetching {kind.url} to {root} failed ({' '.join(str(error).split())})"
    return (
        f"image_set.root: no complete, undamaged {kind.__name__} in {folder.resolve()}; "
        f"unpack {kind.filename} in {root.resolve()} or pass image_set.download=true"
    )
