"""A dataset of the Hugging Face hub, or a local one, read with the package `datasets` (extra `hf`).

`path` is what `datasets.load_dataset` takes (a name on the hub, or a folder of parquet files or of images), or a folder
written by `save_to_disk`. What is downloaded stays in the cache of `datasets`; sources and licences are those of the
dataset. Images are held in memory as central squares of `image_size` pixels.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from coupled.datasets import MOST_IN_MEMORY, ImageDataset, channel_statistics, check_range, check_split, tracked_count
from coupled.datasets._pictures import square

IMAGES, LABELS = ("image", "img"), ("label", "labels")  # columns that are found without being named


def own_size(*, path: str) -> int:
    """Refused: rows may have any sizes, and reading them all to find one would take as long as loading them."""
    raise ValueError(f"dataset.image_size: missing; '{path}' is shown at the size given here, in pixels a side")


def load(
    split: str,
    *,
    path: str,
    image_size: int,
    config: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    image_column: str | None = None,
    label_column: str | None = None,
) -> ImageDataset:
    """One split at `image_size` x `image_size` pixels.

    Args:
        split: "train" or "test".
        path: name on the hub, or a local folder.
        image_size: pixels a side, 4 to 4096.
        config: configuration of the dataset, where it has several.
        train_split: the dataset's name of the split that is trained on.
        test_split: its name of the split that is measured on as "test", such as "validation".
        image_column: column of images; without it "image" or "img".
        label_column: column of class labels; without it "label" or "labels".

    Returns:
        The images as uint8, normalised by the mean and standard deviation of the train split.

    Raises:
        ValueError: without the package or the network, and for a split or column that is not there.
    """
    check_split(split)
    check_range("image_size", image_size, 4, 4096)
    names = {"train": train_split, "test": test_split}
    if train_split == test_split:
        raise ValueError(f"dataset.test_split: got '{test_split}', which is trained on; name another split")
    columns = image_column, label_column
    train_N3SS, _, classes = _decoded(path, config, train_split, image_size, *columns)
    images_N3SS, labels_N, of_split = _decoded(path, config, names[split], image_size, *columns)
    if of_split != classes:
        raise ValueError(f"dataset.path: '{path}' has other classes in '{test_split}' than in '{train_split}'")
    mean, std = channel_statistics(train_N3SS)
    return ImageDataset("huggingface", split, images_N3SS, labels_N, classes, mean, std)


@lru_cache(maxsize=2)  # both splits of a run: the train split is needed for the mean of either
def _decoded(
    path: str, config: str | None, split: str, size: int, image_column: str | None, label_column: str | None
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Pixels [N, 3, S, S], labels [N] and class names of a split of the dataset."""
    rows = _rows(path, config, split)
    image = _column(rows, image_column, IMAGES, "image_column")
    label = _column(rows, label_column, LABELS, "label_column")
    if (needed := len(rows) * 3 * size**2) > MOST_IN_MEMORY:
        most = f"{MOST_IN_MEMORY / 2**30:g} GiB"
        raise ValueError(
            f"dataset.path: the {len(rows):,} images of '{split}' need {needed / 2**30:.1f} GiB, at most {most} are"
            " held; unpack the parquet files with `coupled prepare-data` for dataset.name=folder"
        )
    names = getattr(rows.features[label], "names", None)
    given = rows[label]
    if names is None:
        names = sorted(set(given))
        given = [names.index(each) for each in given]
    labels_N = torch.tensor(given, dtype=torch.int64)
    if not len(labels_N) or labels_N.min() < 0:
        raise ValueError(f"dataset.label_column: '{label}' of '{split}' has rows without a class (-1), or no rows")
    images_N3SS = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
    for number, picture in enumerate(tracked_count(rows[image], len(rows), f"decoding '{split}' of {path}")):
        if not hasattr(picture, "convert"):
            raise ValueError(f"dataset.image_column: '{image}' holds {type(picture).__name__}, allowed are images")
        images_N3SS[number] = square(pil_to_tensor(picture.convert("RGB")), size)
    return images_N3SS, labels_N, tuple(map(str, names))


def _rows(path: str, config: str | None, split: str) -> Any:
    """The rows of a split, as a `datasets.Dataset`."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise ValueError(
            "dataset.name: 'huggingface' needs the package datasets; run pip install 'coupled[hf]'"
        ) from None
    try:
        if (Path(path) / "dataset_dict.json").is_file():
            splits = datasets.load_from_disk(path)
            if split not in splits:
                raise ValueError(f"Unknown split '{split}'; it has {', '.join(map(str, splits))}")
            return splits[split]
        return datasets.load_dataset(path, config, split=split)
    except (OSError, ValueError) as error:  # no network, no such dataset, split or config
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"dataset.path: cannot load split '{split}' of '{path}': {text[:300]}") from None


def _column(rows: Any, given: str | None, usual: tuple[str, ...], key: str) -> str:
    """The column that `key` names, or the usual one that there is."""
    for name in (given,) if given else usual:
        if name in rows.features:
            return name
    raise ValueError(f"dataset.{key}: got {given}; the columns are {', '.join(rows.features)}")
