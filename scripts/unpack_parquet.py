"""Hugging Face's parquet files of an image-classification dataset -> its images, one folder a class.

Used by prepare_images.py; needs pyarrow, the extra [hf].
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unpack_archives import Member

SPLITS = {"train": "train", "valid": "val", "validation": "val", "val": "val", "test": "test"}
ENDINGS = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}
SHARD = re.compile(r"-(\d+)-of-(\d+)")
WORDNET_ID = re.compile(r"n\d{8}")


def by_split(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The parquet files of each split (train, val, test), sorted: it is named first in a file's name, or its folder's.

    Raises ValueError for a file whose split cannot be told, and if of train-00000-of-00002 ... one is missing.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(paths):
        words = [re.split(r"[-_.]", name)[0] for name in (path.name, path.parent.name)]
        split = next((SPLITS[word] for word in words if word in SPLITS), None)
        if split is None:
            raise ValueError(f"{path}: of which split? its name or folder must begin with one of {', '.join(SPLITS)}")
        found.setdefault(split, []).append(path)
    for split, files in found.items():
        shards = [tuple(map(int, match.groups())) for path in files if (match := SHARD.search(path.name))]
        missing = sorted({(number, total) for _, total in shards for number in range(total)} - set(shards))
        if missing:
            number, total = missing[0]
            raise ValueError(f"{files[0].parent}: file {number:05d} of {total} of {split} is missing; fetch it too")
    return found


def parquet_members(paths: Sequence[Path]) -> Iterator[Member]:
    """The images of a split as <class>/<row>.<ending>; rows are counted over all files.

    The folder of a class is its WordNet id where the classes are called so, else its number and name. Raises ValueError
    if pyarrow is missing, or a file is not one of images and class labels.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise ValueError(
            "parquet files are read by pyarrow, which is not installed: pip install 'coupled[hf]'"
        ) from None
    row = 0
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
        except (arrow.ArrowException, OSError) as error:
            raise ValueError(f"{path}: not readable as parquet ({error}); fetch it again") from None
        image, label, names = _columns(path, file.schema_arrow.metadata or {})
        with file:
            for batch in file.iter_batches(batch_size=64, columns=[image, label]):
                for cells in batch.to_pylist():
                    yield _member(path, row, cells[image]["bytes"], cells[label], names)
                    row += 1


def _columns(path: Path, metadata: dict[bytes, bytes]) -> tuple[str, str, list[str]]:
    """The column of images, that of labels, and the names of the classes, as Hugging Face notes them in a file."""
    features: dict[str, Any] = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {feature.get("_type"): key for key, feature in features.items() if isinstance(feature, dict)}
    if not {"Image", "ClassLabel"} <= kinds.keys():
        raise ValueError(f"{path}: no image set: its features have no Image and ClassLabel, but {list(features)}")
    return kinds["Image"], kinds["ClassLabel"], features[kinds["ClassLabel"]]["names"]


def _member(path: Path, row: int, content: bytes | None, label: int | None, names: Sequence[str]) -> Member:
    ending = ENDINGS.get((content or b"")[:2])
    if content is None or ending is None:
        raise ValueError(f"{path}: image {row} of the split is no JPEG, PNG or WebP; use another copy")
    if label is None or not 0 <= label < len(names):
        raise ValueError(f"{path}: image {row} of the split has no label ({label}); leave this split out")
    name = names[label]
    if not WORDNET_ID.fullmatch(name):
        name = f"{label:04d}_{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_')}"
    return Member(f"{name}/{row:07d}.{ending}", len(content), lambda: io.BytesIO(content))
