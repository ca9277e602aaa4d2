"""Files that survive a crash: the old or the whole new one, a line or none of it; and why one cannot be written."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)  # no space, a limit on the size of a file, a quota


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader or a crash sees the old file or the whole new one."""
    make_folder(path.parent)
    temporary = path.with_name(path.name + ".tmp")
    with errors_with_path(path, len(data)):
        try:
            with open_no_follow(temporary, "wb") as file:
                append(file, data, sync=True)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):  # on a full disk its part of the file would be in the way
                temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def encoded(text: str) -> bytes:
    """The text of a file in UTF-8; a path in it whose bytes are no text has escapes for them."""
    return text.encode(errors="backslashreplace")


def append_durably(path: Path, text: str) -> None:
    """Append `text` in one write and fsync it; if that fails, none of it stays."""
    make_folder(path.parent)
    data = encoded(text)
    with errors_with_path(path, len(data)), open_no_follow(path, "ab") as file:
        append(file, data, sync=True)


def append(file: Any, data: bytes, sync: bool = False) -> None:
    """Append to an unbuffered file, and fsync it with `sync`; if that fails, none of `data` stays. Raises OSError."""
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
    """Open the file `path` for writing, unbuffered, but never through a symbolic link: whoever hands on a run folder
    would choose the file to be overwritten.
    """
    return open(path, mode, buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it, where they do not exist. Raises OSError with the path."""
    with errors_with_path(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def errors_with_path(path: Path, size: int = 0) -> Iterator[None]:
    """An OSError within gets the path and the reason, and where it is space that lacks, the bytes needed and free."""
    try:
        yield
    except OSError as error:
        text = f"{path}: {error.strerror}"
        if error.errno == errno.ELOOP:
            text = f"{path}: a symbolic link where the run writes a file of its own; delete the link"
        if error.errno in FULL and size:
            text += f": {size:,} bytes needed"
        if error.errno == errno.ENOSPC:  # how much of a quota or of a file's limit is left the disk does not tell
            there = next(each for each in path.absolute().parents if each.exists())
            text += f"{',' if size else ':'} {shutil.disk_usage(there).free:,} bytes free on the disk"
        raise OSError(error.errno, text) from None


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
