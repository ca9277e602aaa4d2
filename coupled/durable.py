"""Files that survive a crash: the old or the whole new one, a line or none of it; and what a full disk lacks."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader or a crash sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with space_named(path, len(data)), temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk its part of the file would be in the way
        raise
    fsync_folder(path.parent)


def append_durably(path: Path, text: str) -> None:
    """Append `text` in one write and fsync it; if that fails, none of it stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with space_named(path, len(text)), path.open("ab", buffering=0) as file:
        append(file, text.encode())
        os.fsync(file.fileno())


def append(file: Any, data: bytes) -> None:
    """Append to an unbuffered file; if the disk does not take all of `data`, none of it stays. Raises OSError."""
    before, written = os.fstat(file.fileno()).st_size, 0
    try:
        while written < len(data):
            written += file.write(data[written:])
    except OSError:
        os.ftruncate(file.fileno(), before)
        raise


@contextmanager
def space_named(path: Path, size: int) -> Iterator[None]:
    """An OSError within gets the path, the bytes needed and the bytes free."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        text = f"{path}: {error.strerror}: {size:,} bytes needed, {free:,} bytes free on the disk"
        raise OSError(error.errno, text) from None


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
