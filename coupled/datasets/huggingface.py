"""A dataset of the Hugging Face hub, or a local one, read with the package `datasets` (extra `hf`).

`path` is what `datasets.load_dataset` takes (a name on the hub, or a folder of parquet files or of images), or a folder
written by `save_to_disk`. Downloads stay in the cache of `datasets`; source and licence are those of the dataset.

Images are held as central squares of `image_size` pixels: in memory or, with `streaming`, in the cache of decoded
images (`_cache.py`), which is mapped into memory. The disk limits their number.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from coupled.datasets import (
    MOST_IN_MEMORY,
    ImageDataset,
    _cache,
    channel_statistics,
    check_range,
    check_split,
    tracked_count,
)
from coupled.datasets._pictures import enlarged, square
from coupled.datasets._streamed import kept_or_streamed

IMAGES, LABELS = ("image", "img"), ("label", "labels")  # columns that are used without a setting
SMALLEST, LARGEST = 4, 4096  # pixels a side
SAMPLED = 256  # images whose headers show whether images are enlarged


def own_size(
    *,
    path: str,
    config: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    image_column: str | None = None,
    streaming: bool = False,
) -> int:
    """The shorter side of the images if all of both splits share it; from their headers, no image is decoded.

    Raises ValueError if the sides differ or are not allowed, and for a stream, which would be read twice.
    """
    missing = f"dataset.image_size: missing; set the side in pixels to which the images of '{path}' are resized"
    if streaming:
        raise ValueError(missing)
    found: set[int] = set()
    for split in (train_split, test_split):
        rows = _rows(path, config, split, streaming)
        for side in _sides(rows, _column(rows, image_column, IMAGES, "image_column"), split, path):
            found.add(side)
            if len(found) > 1:
                raise ValueError(f"{missing}, because their shorter sides differ: {min(found)} and {max(found)} px")
    if not found or not SMALLEST <= max(found) <= LARGEST:
        raise ValueError(missing)
    return max(found)


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
    streaming: bool = False,
) -> ImageDataset:
    """One split at `image_size` x `image_size` pixels.

    Args:
        split: "train" or "test".
        path: name on the hub, or a local folder.
        image_size: pixels a side, 4 to 4096.
        config: configuration of the dataset, if it has several.
        train_split: the dataset's name of the split that is trained on.
        test_split: the dataset's name of the split that is used as "test", such as "validation".
        image_column: column of images; without it "image" or "img".
        label_column: column of class labels; without it "label" or "labels".
        streaming: read the rows once, without downloading the dataset, and keep the decoded images in the local cache,
            from which they are mapped into memory.

    Returns:
        The images as uint8, normalised by the mean and standard deviation of the train split.

    Raises:
        ValueError: without the package or the network, and for a missing split or column.
    """
    check_split(split)
    check_range("image_size", image_size, SMALLEST, LARGEST)
    names = {"train": train_split, "test": test_split}
    if train_split == test_split:
        raise ValueError(f"dataset.test_split: got '{test_split}', which is the train split; name another split")
    if streaming and not _cache.most_bytes():
        raise ValueError(
            "dataset.streaming: got true, but COUPLED_CACHE_GIB=0 keeps no decoded images; allowed is false"
        )
    columns = image_column, label_column, streaming
    train_N3SS, _, classes = _decoded(path, config, train_split, image_size, *columns)
    images_N3SS, labels_N, of_split = _decoded(path, config, names[split], image_size, *columns)
    if of_split != classes:
        raise ValueError(f"dataset.path: '{path}' has other classes in '{test_split}' than in '{train_split}'")
    mean, std = channel_statistics(train_N3SS)
    notes: tuple[str, ...] = ()
    if split == "train" and not streaming:  # a cached stream needs no network
        rows = _rows(path, config, train_split, streaming)
        first = _sides(rows, _column(rows, image_column, IMAGES, "image_column"), train_split, path)
        notes = tuple(enlarged(split, [*islice(first, SAMPLED)], image_size))
    return ImageDataset("huggingface", split, images_N3SS, labels_N, classes, mean, std, notes=notes)


@lru_cache(maxsize=2)  # both splits of a run: the train split is needed for the mean of either
def _decoded(
    path: str,
    config: str | None,
    split: str,
    size: int,
    image_column: str | None,
    label_column: str | None,
    streaming: bool,
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Pixels [N, 3, S, S], labels [N] and class names of a split of the dataset."""
    rows = _rows(path, config, split, streaming)
    image = _column(rows, image_column, IMAGES, "image_column")
    label = _column(rows, label_column, LABELS, "label_column")
    names = getattr(rows.features[label], "names", None)
    what = f"decoding '{split}' of {path}"
    if streaming:
        key = _streaming_key(rows, path, config, split, size, image, label)
        read = _readable(rows.select_columns([image, label]), split, path)
        pairs = ((row[image], row[label]) for row in read)
        images_N3SS, given = kept_or_streamed(
            key, size, lambda: ((_square(each, size, image), of) for each, of in tracked_count(pairs, None, what))
        )
    else:
        if (needed := len(rows) * 3 * size**2) > MOST_IN_MEMORY:
            most = f"{MOST_IN_MEMORY / 2**30:g} GiB"
            raise ValueError(
                f"dataset.path: the {len(rows):,} images of '{split}' need {needed / 2**30:.1f} GiB, at most {most} are"
                " held in memory; set dataset.streaming=true to map them from the cache of decoded images"
            )
        given = rows[label]
        images_N3SS = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
        for number, picture in enumerate(tracked_count(_readable(rows[image], split, path), len(rows), what)):
            images_N3SS[number] = _square(picture, size, image)
    if names is None:
        names = sorted(set(given))
        numbers = {name: number for number, name in enumerate(names)}
        given = [numbers[each] for each in given]
    labels_N = torch.tensor(given, dtype=torch.int64)
    if not len(labels_N) or labels_N.min() < 0:
        raise ValueError(f"dataset.label_column: '{label}' of '{split}' has rows without a class (-1), or no rows")
    return images_N3SS, labels_N, tuple(map(str, names))


def _readable(rows: Iterable[Any], split: str, path: str) -> Iterator[Any]:
    """The rows. Raises ValueError that names the first one that cannot be read or decoded."""
    remaining, number = iter(rows), 0
    while True:
        try:
            row = next(remaining)
        except StopIteration:
            return
        except (OSError, ValueError, SyntaxError) as error:  # raised by Pillow or by the network
            text = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"dataset.path: cannot read row {number} of '{split}' of '{path}': {text[:300]}") from None
        yield row
        number += 1


def _sides(rows: Any, column: str, split: str, path: str) -> Iterator[int]:
    """The shorter sides of the images of a `datasets.Dataset`, from their headers."""
    import datasets

    if not isinstance(rows.features[column], datasets.Image):
        raise _no_images(column, rows.features[column])
    stored = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    return _readable(map(_shorter_side, (row[column] for row in stored)), split, path)


def _shorter_side(stored: Mapping[str, Any]) -> int:
    with Image.open(BytesIO(stored["bytes"]) if stored["bytes"] else stored["path"]) as picture:
        return min(picture.size)


def _square(picture: Any, size: int, column: str) -> Tensor:
    """An image at the size of the dataset, uint8 [3, S, S]."""
    if not hasattr(picture, "convert"):
        raise _no_images(column, picture)
    return square(pil_to_tensor(picture.convert("RGB")), size)


def _no_images(column: str, there: object) -> ValueError:
    return ValueError(f"dataset.image_column: '{column}' holds {type(there).__name__}, allowed are images")


def _streaming_key(rows: Any, path: str, config: str | None, split: str, size: int, *columns: str) -> str:
    """The entry of the cache: of a local folder by its files, of a name on the hub by the commit of its files."""
    import datasets

    files: list[str] = []
    origin: list[str] = []
    if Path(path).is_dir():
        files = sorted(str(each) for each in Path(path).rglob("*") if each.is_file())
    else:
        builder = datasets.load_dataset_builder(path, config)
        found = builder.config.data_files or {}
        origin = [str(builder.hash), *(f"{name}: {each.origin_metadata}" for name, each in sorted(found.items()))]
    of_files = _cache.key_of(files, size)
    parts = [of_files, path, config, split, *columns, str(rows.features), datasets.__version__, *origin]
    return hashlib.blake2b(json.dumps(["streamed", *parts]).encode(), digest_size=16).hexdigest()


def _rows(path: str, config: str | None, split: str, streaming: bool) -> Any:
    """The rows of a split, as a `datasets.Dataset`, or with `streaming` as a `datasets.IterableDataset`."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise ValueError("dataset.name: 'huggingface' needs the package datasets: pip install datasets") from None
    try:
        if (Path(path) / "dataset_dict.json").is_file():
            splits = datasets.load_from_disk(path)
            if split not in splits:
                raise ValueError(f"Unknown split '{split}'; it has {', '.join(map(str, splits))}")
            return splits[split].to_iterable_dataset() if streaming else splits[split]
        rows = datasets.load_dataset(path, config, split=split, streaming=streaming)
        return rows if rows.features else rows._resolve_features()  # the classes of a stream are in its first row
    except (OSError, ValueError) as error:  # no network, no such dataset, split or config
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"dataset.path: cannot load split '{split}' of '{path}': {text[:300]}") from None


def _column(rows: Any, given: str | None, usual: tuple[str, ...], key: str) -> str:
    """The column that `key` names, or the default column that exists."""
    for name in (given,) if given else usual:
        if name in rows.features:
            return name
    raise ValueError(f"dataset.{key}: got {given}; the columns are {', '.join(rows.features)}")
