"""A list of the picture files of a set, by which a later change can be named. One JSON array a line:

[split, file, label, content], where content is the size in bytes of a picture that stays on the disk, and a digest of
the pixels of one that is held in memory.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b

from coupled.datasets import AnyImageSet, ImageFiles

SHOWN = 3  # files that a message names

Rows = Iterator[tuple[str, str, int, int | str]]


def listing(images: Mapping[str, AnyImageSet]) -> bytes:
    """The list of both splits; empty if their images are not files of their own."""
    return "".join(json.dumps(row) + "\n" for split, each in images.items() for row in _rows(split, each)).encode()


def changes(there: bytes, split: str, images: AnyImageSet) -> str:
    """Which files of the split are not as in the list `there`, in words; "" if the list or the images tell of none.

    Raises ValueError if `there` is no such list.
    """
    was = {}
    for number, line in enumerate(there.decode().splitlines(), 1):
        row = json.loads(line)
        if not isinstance(row, list) or len(row) != 4 or not isinstance(row[1], str):
            raise ValueError(f"line {number} is not split, file, label and content")
        if row[0] == split:
            was[row[1]] = row[2:]
    now = {file: [label, content] for _, file, label, content in _rows(split, images)}
    if not was or not now:
        return ""
    kinds = {
        "changed": [file for file in now if file in was and was[file] != now[file]],
        "new": [file for file in now if file not in was],
        "gone": [file for file in was if file not in now],
    }
    return "; ".join(f"{kind}: {_named(files)}" for kind, files in kinds.items() if files)


def _rows(split: str, images: AnyImageSet) -> Rows:
    labels = images.labels_N.tolist()
    if isinstance(images, ImageFiles):
        for file, label, (size, _) in zip(images.files_N, labels, images.file_status, strict=True):
            yield split, file, label, size
    elif images.files_N:
        for file, label, image_3HW in zip(images.files_N, labels, images.images_N3HW, strict=True):
            yield split, file, label, blake2b(image_3HW.contiguous().numpy().data, digest_size=8).hexdigest()


def _named(files: list[str]) -> str:
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return ", ".join(files[:SHOWN]) + more
