"""Cache of decoded images: .npy files that are mapped into memory, so that later starts need not decode.

The files are in the folder `COUPLED_CACHE` (default ~/.cache/coupled), which takes at most `COUPLED_CACHE_GIB` GiB
(default 32; 0 disables the cache); the least recently used entries are deleted. An entry is two files, the images and a
JSON file with their checksums. Its name is a digest of everything that the images depend on. A damaged entry is not
used, but written again. The folder may be deleted at any time.

Shape letters: N images, S size.
"""

import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import get_native_id

import numpy as np
import PIL
import torch
import torchvision
from filelock import FileLock, Timeout
from torch import Tensor

from coupled.datasets import say

CHUNK = 64 * 2**20  # bytes that have a checksum
SMALLEST = 2**20  # bytes; decoding fewer is faster than using the cache
SPARE = 2**30  # bytes that are left free on the disk
PATIENCE = 1.0  # seconds to wait for another process before a message is printed
ABANDONED = 24 * 3600.0  # seconds after which a temporary file or a lock counts as abandoned
MOST = 32.0  # GiB


def cache_folder() -> Path:
    """The folder of the cache."""
    given = os.environ.get("COUPLED_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "coupled"


def most_bytes() -> int:
    """The bytes that the cache may take. Raises ValueError for a limit that is not a number."""
    given = os.environ.get("COUPLED_CACHE_GIB", str(MOST))
    try:
        return round(float(given) * 2**30)
    except (ValueError, OverflowError):
        raise ValueError(f"COUPLED_CACHE_GIB: got '{given}'; allowed is a number of GiB, 0 or more") from None


def key_of(paths: Sequence[str], size: int) -> str:
    """The name of the entry of these files at this size: 32 hexadecimal digits.

    A file that was changed has another time of its inode, even if its size and time of modification were put back.
    """
    versions = [
        PIL.__version__,
        torch.__version__,
        torchvision.__version__,
    ]  # another version may decode or resize differently
    digest = hashlib.blake2b(json.dumps([1, size, *versions, os.fsdecode(Path.cwd())]).encode(), digest_size=16)
    for path in paths:
        status = os.stat(path)  # noqa: PTH116 - a `Path` takes three times as long
        digest.update(os.fsencode(path))
        digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0".encode())
    return digest.hexdigest()


def read_entry(key: str, images: int, size: int) -> tuple[Tensor, list[int]] | None:
    """The images of an entry, uint8 [N, 3, S, S], mapped into memory, and their sides; None if it is missing or
    damaged. Changes to the tensor are not written to the file.
    """
    path, about = files_of(key)
    try:
        known = json.loads(about.read_text(encoding="utf-8"))
        images_N3SS = np.load(path, mmap_mode="c", allow_pickle=False)
        shape, sides = (images, 3, size, size), known["sides"]
        if images_N3SS.shape != shape or images_N3SS.dtype != np.uint8 or len(sides) != images:
            return None
        if known["checksums"] != checksums(images_N3SS.reshape(-1)):
            return None
        os.utime(about)  # mark the entry as recently used
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    return torch.from_numpy(images_N3SS), sides


def write_entry(key: str, images_N3SS: Tensor, sides: Sequence[int]) -> None:
    """Write the images to the cache, if the cache and the disk have room for them. Raises OSError.

    Each file gets its name when it is complete, the JSON file last; two processes may write the same entry.
    """
    path, _ = files_of(key)
    needed = images_N3SS.numel()
    if not SMALLEST <= needed <= most_bytes():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    make_room(path.parent, needed)
    if shutil.disk_usage(path.parent).free < needed + SPARE:
        return
    values = images_N3SS.numpy()
    content = {"checksums": checksums(values.reshape(-1)), "sides": list(sides)}
    with replacing(key) as (images_file, about_file):
        with images_file.open("wb") as file:
            np.save(file, values, allow_pickle=False)
        about_file.write_text(json.dumps(content), encoding="utf-8")


@contextmanager
def replacing(key: str) -> Iterator[tuple[Path, Path]]:
    """The two temporary files of an entry. If no error is raised, they are renamed at the end, the JSON file last."""
    files = files_of(key)
    temporaries = temporary_of(files[0]), temporary_of(files[1])
    try:
        yield temporaries
        for temporary, file in zip(temporaries, files, strict=True):
            temporary.replace(file)
    finally:
        for each in temporaries:
            each.unlink(missing_ok=True)


@contextmanager
def alone(key: str) -> Iterator[None]:
    """Let one process at a time decode the images of an entry; the others wait, and then read the entry.

    If the folder cannot be written or does not support locks, no process waits.
    """
    path = files_of(key)[1].with_suffix(".lock")
    with ExitStack() as held:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, fallback_to_soft=False)
            try:
                lock.acquire(timeout=PATIENCE)
            except Timeout:
                say(f"waiting for another process that decodes the same images; it holds the lock {path}", sys.stderr)
                lock.acquire()
            held.callback(lock.release)
        yield


def read_side(key: str) -> int | None:
    """The side in pixels that the cache has for these files; None if it is missing or damaged."""
    about = files_of(key)[1]
    try:
        known = json.loads(about.read_text(encoding="utf-8"))
        side = int(known["side"])
        if known["checksum"] != zlib.crc32(f"{key} {side}".encode()):
            return None
        os.utime(about)  # mark the entry as recently used
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return side


def write_side(key: str, side: int) -> None:
    """Write the side that all these images share to the cache. Raises OSError."""
    about = files_of(key)[1]
    about.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(about)
    content = {"side": side, "checksum": zlib.crc32(f"{key} {side}".encode())}
    try:
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(about)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """A unique name beside `path`, for an incomplete file."""
    return path.with_name(f"{path.name}.{os.getpid()}-{get_native_id()}.tmp")


def files_of(key: str) -> tuple[Path, Path]:
    """The files of an entry: images and JSON."""
    folder = cache_folder() / "decoded"
    return folder / f"{key}.npy", folder / f"{key}.json"


def checksums(values: np.ndarray) -> list[int]:
    """Checksums of flat uint8 values, one for each `CHUNK`."""
    parts = [values[start : start + CHUNK] for start in range(0, len(values), CHUNK)]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda part: zlib.crc32(part.data), parts))


def make_room(folder: Path, needed: int) -> None:
    """Delete abandoned files, then the least recently used entries until `needed` bytes fit.

    A process that has mapped a deleted file can still read it.
    """
    used = {path: path.stat().st_mtime for path in folder.glob("*.json")}
    for path in folder.glob("*"):
        single = path.suffix in (".tmp", ".lock") or (path.suffix == ".npy" and path.with_suffix(".json") not in used)
        if single and time.time() - path.stat().st_mtime > ABANDONED:
            path.unlink(missing_ok=True)
    taken = sum(path.stat().st_size for path in folder.glob("*.npy"))
    for about in sorted(used, key=lambda path: used[path]):
        if taken + needed <= most_bytes():
            return
        path = about.with_suffix(".npy")
        taken -= path.stat().st_size if path.exists() else 0
        about.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
