"""Read datasets in torchvision's formats with its classes, which check the md5 sums of the files."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coupled.datasets import ImageDataset, channel_statistics, check_split


def read(
    split: str,
    make: Callable[[str], Any],
    root: Path,
    url: str,
    download: bool,
    missing: str,
    *,
    also: Iterable[str] = (),
) -> dict[str, Any]:
    """`make` of the split, of "train", because mean and std come from it, and of `also`: torchvision's sets by split.

    Raises ValueError with `missing` and `url` if the files below `root` are missing or damaged, or if the download of
    `url` failed.
    """
    check_split(split)
    try:
        return {part: make(part) for part in sorted({"train", split, *also})}
    except (RuntimeError, OSError) as error:
        if download:
            reason = " ".join(str(error).split())
            raise ValueError(f"dataset.download: downloading {url} to {root} failed ({reason})") from None
        raise ValueError(f"dataset.root: {missing} ({url}) or pass dataset.download=true") from None


def dataset(
    name: str, split: str, pixels: Mapping[str, NDArray[np.uint8]], labels: Iterable[int], class_names: Iterable[str]
) -> ImageDataset:
    """The dataset of these `pixels` [N, 3, H, W] by split, with mean and std of the train images."""
    images = {part: torch.from_numpy(np.ascontiguousarray(each_N3HW)) for part, each_N3HW in pixels.items()}
    mean, std = channel_statistics(images["train"])
    return ImageDataset(
        name=name,
        split=split,
        images_N3HW=images[split],
        labels_N=torch.tensor(list(labels), dtype=torch.int64),
        class_names=tuple(class_names),
        mean=mean,
        std=std,
    )
