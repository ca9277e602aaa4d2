"""STL-10: 5 000 train, 8 000 test and 100 000 unlabelled images of 96 px, 10 classes.

A. Coates, H. Lee, A. Y. Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning" (2011),
https://cs.stanford.edu/~acoates/stl10/; no licence is stated there, and the images come from ImageNet. Read from
torchvision's folder, as the binary archive unpacks; unlabeled_X.bin (2.6 GB) may be missing if `train_part` is train.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torchvision.datasets import STL10

from coupled.datasets import ImageDataset
from coupled.datasets._torchvision import dataset, read

SIZE = 96
ADDED = ("train_part",)  # options that are recorded only if they do not have their default
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
TrainPart = Literal["train", "unlabeled", "train+unlabeled"]


class LabelledSTL10(STL10):
    """torchvision's STL-10 without the unlabelled images; their file is not required, and not checked at each start."""

    train_list = STL10.train_list[:2]


def load(
    split: str, *, root: Path | None = None, download: bool = False, train_part: TrainPart = "train"
) -> ImageDataset:
    """STL-10 below `root` (default data); `download` downloads it (2.6 GB) if it is missing.

    `train_part` selects the images of the training steps: `train`, the 5 000 labelled ones; `unlabeled`, the 100 000
    unlabelled ones (2.8 GB in memory); or `train+unlabeled`, all 105 000. The last two are trained without any label,
    so objectives that need labels are refused. The splits train and test of the analyses always have the labelled
    images, and mean and std are always those of the 5 000. Raises ValueError if the files are missing, damaged, or
    cannot be downloaded.
    """
    found = _read(split, root, download)
    return dataset("stl10", split, {part: each.data for part, each in found.items()}, found[split].labels, CLASSES)


def unlabelled(
    train: ImageDataset, *, root: Path | None = None, download: bool = False, train_part: TrainPart = "train"
) -> ImageDataset | None:
    """The images of the training steps, without labels; None if they are the labelled images `train`."""
    if train_part == "train":
        return None
    unlabelled_N3HW = torch.from_numpy(_read("train", root, download, also=("unlabeled",))["unlabeled"].data)
    kept = [train.images_N3HW] if train_part == "train+unlabeled" else []
    images_N3HW = torch.cat([*kept, unlabelled_N3HW]).contiguous()
    return replace(train, images_N3HW=images_N3HW, labels_N=torch.full((len(images_N3HW),), -1), class_names=())


def _read(split: str, root: Path | None, download: bool, *, also: tuple[str, ...] = ()) -> dict[str, Any]:
    """torchvision's datasets by split. The file of the unlabelled images is required only for that split."""
    root = root or Path("data")
    what = "STL10 with its unlabelled images" if also else "STL10"
    return read(
        split,
        lambda part: (STL10 if part == "unlabeled" else LabelledSTL10)(str(root), split=part, download=download),
        root,
        STL10.url,
        download,
        f"no complete, undamaged {what} in {(root / STL10.base_folder).resolve()}; unpack {STL10.filename} in"
        f" {root.resolve()}",
        also=also,
    )
