"""Read images and labels one by one, write them decoded to the cache, and map them into memory.

Shape letters: N images, S size.
"""

import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coupled.datasets import _cache

Rows = Iterator[tuple[Tensor, Any]]  # uint8 [3, S, S] and a label that JSON can hold


def kept_or_streamed(key: str, size: int, rows: Callable[[], Rows]) -> tuple[Tensor, list[Any]]:
    """Images, uint8 [N, 3, S, S], mapped into memory, and labels; from the cache, or from `rows`, then cached.

    Raises OSError, and ValueError if the images do not fit into the cache.
    """
    if found := _read(key, size):
        return found
    with _cache.alone(key):
        if found := _read(key, size):  # another process has written it meanwhile
            return found
        _write(key, size, rows())
        found = _read(key, size)
    if not found:
        raise OSError(f"{_cache.files_of(key)[0]}: changed after it was written; start the command again")
    return found


def _read(key: str, size: int) -> tuple[Tensor, list[Any]] | None:
    """The entry; None if it is missing or damaged."""
    try:
        labels = json.loads(_cache.files_of(key)[1].read_text(encoding="utf-8"))
        if labels["checksum"] != _checksum(labels["labels"]):
            return None
        entry = _cache.read_entry(key, len(labels["labels"]), size)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (entry[0], labels["labels"]) if entry else None


def _write(key: str, size: int, rows: Rows) -> None:
    """Write the entry in parts, so that it is never whole in memory. The complete file gets its final name."""
    path, _ = _cache.files_of(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    labels: list[Any] = []
    with _cache.replacing(key) as (images_file, about_file):
        with images_file.open("w+b") as file:
            start = _write_header(file, 0, size)
            part: list[Tensor] = []
            for picture_3SS, label in rows:
                part.append(picture_3SS)
                labels.append(label)
                if len(part) * 3 * size**2 >= _cache.CHUNK:
                    _append(file, part)
                    part.clear()
            _append(file, part)
            file.seek(0)
            assert _write_header(file, len(labels), size) == start, "numpy leaves room for a longer first axis"
        values = np.load(images_file, mmap_mode="r", allow_pickle=False).reshape(-1)
        content: dict[str, Any] = {"checksums": _cache.checksums(values), "sides": [size] * len(labels)}
        content |= {"labels": labels, "checksum": _checksum(labels)}
        about_file.write_text(json.dumps(content), encoding="utf-8")


def _write_header(file: Any, images: int, size: int) -> int:
    """Write the header of a .npy file; return its length."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (images, 3, size, size)}
    np.lib.format.write_array_header_1_0(file, header)
    length: int = file.tell()
    return length


def _append(file: Any, part: Sequence[Tensor]) -> None:
    if not part:
        return
    needed = len(part) * part[0].numel()
    total, folder = file.tell() + needed, _cache.cache_folder() / "decoded"
    if total > _cache.most_bytes():
        raise ValueError(
            f"dataset.streaming: the decoded images need more than the {_cache.most_bytes() / 2**30:g} GiB that"
            " COUPLED_CACHE_GIB allows; set a larger number of GiB"
        )
    _cache.make_room(folder, total)
    if shutil.disk_usage(folder).free < needed + _cache.SPARE:
        raise OSError(
            f"{folder}: not enough disk space for the decoded images; set COUPLED_CACHE to a folder on another disk"
        )
    file.write(torch.stack(list(part)).numpy().data)


def _checksum(labels: list[Any]) -> int:
    return zlib.crc32(json.dumps(labels).encode())
