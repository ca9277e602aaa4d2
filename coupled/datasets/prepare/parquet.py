"""Unpack the parquet files of a Hugging Face image-classification dataset into images, one folder per class.

Used by prepare-data; needs pyarrow, the extra [hf].
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from coupled.datasets.prepare.archives import Member, RefusedError, shown

SPLITS = {"train": "train", "valid": "val", "validation": "val", "val": "val", "test": "test"}
ENDINGS = {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}
SHARD = re.compile(r"-(\d+)-of-(\d+)")
WORDNET_ID = re.compile(r"n\d{8}")
PICTURE = re.compile(r"struct<.*\bbytes: (large_)?binary\b.*>")  # types as pyarrow writes them
WHOLE = re.compile(r"u?int\d+")
ROWS = 16  # rows that are read at a time
LONGEST_NAME = 200  # characters of a class folder


def by_split(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The parquet files of each split (train, val, test), sorted; the name of a file or its folder begins with it.

    Raises ValueError for a file whose name has no split, and for a missing file of train-00000-of-00002 ...
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(paths):
        words = [re.split(r"[-_.]", name)[0] for name in (path.name, path.parent.name)]
        split = next((SPLITS[word] for word in words if word in SPLITS), None)
        if split is None:
            raise ValueError(
                f"{path}: unknown split; the name of the file or its folder must begin with one of {', '.join(SPLITS)}"
            )
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

    The folder of a class is its WordNet id if the classes have such names, otherwise its number and name. Raises
    ValueError if pyarrow is missing, or a file does not hold images and class labels.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise ValueError("parquet files need pyarrow, which is not installed: pip install pyarrow") from None
    row = 0
    for path in paths:
        try:
            with parquet.ParquetFile(path, page_checksum_verification=True) as file:
                image, label, names = _columns(path, file.schema_arrow)
                for batch in file.iter_batches(batch_size=ROWS, columns=[image, label]):
                    for picture, klass in zip(batch.column(image), batch.column(label), strict=True):
                        yield _member(path, row, (picture.as_py() or {}).get("bytes"), klass.as_py(), names)
                        row += 1
        except RefusedError:
            raise
        except (arrow.ArrowException, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise RefusedError(f"{path}: not readable as parquet ({error}); fetch it again") from None


def _columns(path: Path, schema: Any) -> tuple[str, str, list[str]]:
    """The columns of images and of labels, and the class names, from Hugging Face's metadata in a file."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features: dict[str, Any] = noted.get("info", {}).get("features", {})
        kinds = {str(of["_type"]): key for key, of in features.items() if isinstance(of, dict) and "_type" in of}
    except (ValueError, AttributeError, RecursionError) as error:
        raise RefusedError(
            f"{path}: not an image-classification dataset: its features cannot be read ({error})"
        ) from None
    if not {"Image", "ClassLabel"} <= kinds.keys():
        raise RefusedError(
            f"{path}: not an image-classification dataset: its features have no Image and ClassLabel, but"
            f" {shown(str([*features]))}"
        )
    image, label = kinds["Image"], kinds["ClassLabel"]
    names = features[label].get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len({*names}) != len(names):
        raise RefusedError(
            f"{path}: not an image-classification dataset: '{shown(label)}' has no list of different names, but"
            f" {shown(str(names))}"
        )
    for column, kind in ((image, "struct<bytes: binary, path: string>"), (label, "int64")):
        found = str(schema.field(column).type) if column in schema.names else "no such column"
        if not (PICTURE if column == image else WHOLE).fullmatch(found):
            text = f"column '{shown(column)}' should be {kind}, found {shown(found)}"
            raise RefusedError(f"{path}: not an image-classification dataset: {text}")
    return image, label, names


def _member(path: Path, row: int, content: bytes | None, label: int | None, names: Sequence[str]) -> Member:
    ending = ENDINGS.get((content or b"")[:2])
    if content is None or ending is None:
        raise RefusedError(f"{path}: image {row} of the split is not a JPEG, PNG or WebP; use another copy")
    if label is None or not 0 <= label < len(names):
        raise RefusedError(f"{path}: image {row} of the split has no valid label ({label}); do not use this split")
    name = names[label]
    if not WORDNET_ID.fullmatch(name):
        name = f"{label:04d}_{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_')}"[:LONGEST_NAME]
    return Member(f"{name}/{row:07d}.{ending}", len(content), lambda: io.BytesIO(content))
