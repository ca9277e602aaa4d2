"""Durable writes: after a crash a file has its old or its new content, and a line is whole or absent."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)  # no space left, file size limit, quota
THEN = "; free space or raise the limit, then start again (training: with --resume)"


def write_durably(path: Path, data: bytes, within: Path | None = None) -> None:
    """Replace the content of `path` by `data`; a reader, or a crash, sees either the old or the whole new content.

    The folder of the file is created as `make_folder` does.
    """
    make_folder(path.parent, within)
    temporary = path.with_name(path.name + ".tmp")
    with errors_with_path(path, len(data)):
        try:
            with open_no_follow(temporary, "wb") as file:
                append(file, data, sync=True)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):  # a partial file would occupy space on a full disk
                temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def encoded(text: str) -> bytes:
    """Encode `text` as UTF-8; bytes of a path that are not valid text become escapes."""
    return text.encode(errors="backslashreplace")


def append_durably(path: Path, text: str, within: Path | None = None) -> None:
    """Append `text` in one write and fsync it; if that fails, nothing of it stays in the file."""
    make_folder(path.parent, within)
    data = encoded(text)
    with errors_with_path(path, len(data)), open_no_follow(path, "ab") as file:
        append(file, data, sync=True)


def append(file: Any, data: bytes, sync: bool = False) -> None:
    """Append to an unbuffered file, and fsync it with `sync`. On OSError nothing of `data` stays in the file."""
    before, written = os.fstat(file.fileno()).st_size, 0
    try:
        while written < len(data):
            written += file.write(data[written:])
        if sync:
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), before)
        raise


def open_no_follow(path: Path, mode: str) -> IO[bytes]:
    """Open the file `path` for writing, unbuffered, but never through a symbolic link.

    A run folder may come from someone else, and a link in it could point to any file of this machine.
    """
    return open(path, mode, buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


def make_folder(folder: Path, within: Path | None = None) -> None:
    """Create `folder` and its parents where they do not exist. Raise OSError with the path.

    Of a run folder `within` only the folders in it are created: if it was moved meanwhile, it must not appear again.
    """
    with errors_with_path(folder):
        if within is None:
            folder.mkdir(parents=True, exist_ok=True)
            return
        inside = [each for each in (folder, *folder.parents) if each != within and each.is_relative_to(within)]
        for each in reversed(inside):
            each.mkdir(exist_ok=True)


@contextmanager
def errors_with_path(path: Path, size: int = 0) -> Iterator[None]:
    """Add the path to an OSError raised in the block, and the bytes needed and free if space is missing."""
    try:
        yield
    except OSError as error:
        text = f"{path}: {error.strerror}"
        if error.errno == errno.ELOOP:
            text = f"{path}: is a symbolic link, but the run writes a file here; delete the link"
        if error.errno in FULL and size:
            text += f": {size:,} bytes needed"
        if error.errno == errno.ENOSPC:  # of a quota or a file size limit the free bytes are unknown
            there = next(each for each in path.absolute().parents if each.exists())
            text += f"{',' if size else ':'} {shutil.disk_usage(there).free:,} bytes free on the disk"
        raise OSError(error.errno, text + (THEN if error.errno in FULL else "")) from None


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
