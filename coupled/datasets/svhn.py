"""SVHN, digits of house numbers: 73 257 train, 531 131 extra and 26 032 test images of 32 px, 10 classes.

Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning" (2011),
http://ufldl.stanford.edu/housenumbers/, which allows non-commercial use only. Read from torchvision's format: the files
train_32x32.mat, test_32x32.mat and, with `extra`, extra_32x32.mat of the source.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torchvision.datasets import SVHN

from coupled.datasets import ImageDataset
from coupled.datasets._torchvision import dataset, read

SIZE = 32
ADDED = ("extra",)  # options that are recorded only if they do not have their default


def load(split: str, *, root: Path | None = None, download: bool = False, extra: bool = False) -> ImageDataset:
    """SVHN in the folder `root` (default data/svhn); `download` downloads it if it is missing. Label k is the digit k.

    With `extra` the train split has the easier extra images after its own: 604 388 images, 1.9 GB in memory. Mean and
    std are those of the 73 257 train images in either case. Raises ValueError if a file is missing, damaged, or cannot
    be downloaded.
    """
    root = root or Path("data/svhn")
    files = {part: name for part, (_, name, _) in SVHN.split_list.items()}
    more = ("extra",) if extra and split == "train" else ()
    needed = " and ".join(files[part] for part in ("train", "test", *(("extra",) if extra else ())))
    found = read(
        split,
        lambda part: SVHN(str(root), split=part, download=download),
        root,
        "http://ufldl.stanford.edu/housenumbers/",
        download,
        f"no complete, undamaged SVHN in {root.resolve()}; put {needed} there",
        also=more,
    )
    pixels = {part: each.data for part, each in found.items()}
    images = dataset("svhn", split, pixels, found[split].labels.tolist(), map(str, range(10)))
    for part in more:
        images_N3HW = torch.cat([images.images_N3HW, torch.from_numpy(found[part].data)])
        labels_N = torch.cat([images.labels_N, torch.from_numpy(found[part].labels)])
        images = replace(images, images_N3HW=images_N3HW, labels_N=labels_N)
    return images
