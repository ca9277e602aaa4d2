"""ImageNet-1k: 1 281 167 train images of 1 000 classes; its 50 000 validation images are the test split.

O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge" (2015), arXiv 1409.0575;
https://www.image-net.org/download, whose terms allow non-commercial research and education.

The default size is 224 px. Read from train/<class>/*.JPEG and val/<class>/*.JPEG; the images stay on the disk
and are decoded batch by batch in `dataset.num_workers` processes. Other images in folders of this layout can be read,
too.
"""

from collections import Counter
from pathlib import Path

import torch

from coupled.datasets import ImageFiles, check_split, prepare_command
from coupled.datasets._files import check_same_classes, class_files, folders, names_below, passed_over
from coupled.datasets._layouts import check_layout

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the usual values, from the train images
FOLDERS = {"train": "train", "test": "val"}


def load(split: str, *, root: Path | None = None) -> ImageFiles:
    """ImageNet in the folder `root` (default data/imagenet); a class is named by its folder, such as a WordNet id.

    Raises ValueError if it is missing, a class is empty, or the splits differ in classes.
    """
    check_split(split)
    root = root or Path("data/imagenet")
    check_layout(root, "imagenet")
    for folder in FOLDERS.values():
        if not (root / folder).is_dir():
            raise ValueError(
                f"dataset.root: no ImageNet in {root.resolve()}: {folder}/ is missing; fetch ILSVRC2012's archives"
                " (img_train.tar, img_val.tar, devkit_t12.tar.gz) from https://www.image-net.org/download and run"
                f" '{prepare_command('imagenet', 'ILSVRC2012_*', root)}'"
            )
    passed: Counter[str] = Counter()
    files = class_files(root / FOLDERS[split], passed)
    others = dict.fromkeys(folders(root / FOLDERS["test" if split == "train" else "train"]))
    check_same_classes(root, files, others, ("train", "val"))
    return ImageFiles(
        name="imagenet",
        split=split,
        root=root,
        files_N=names_below(root, files),
        labels_N=torch.tensor([label for label, paths in enumerate(files.values()) for _ in paths]),
        class_names=tuple(files),
        mean=MEAN,
        std=STD,
        notes=tuple(passed_over(split, passed)),
    )
