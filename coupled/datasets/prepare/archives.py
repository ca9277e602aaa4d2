"""Read the files of archives, and write them into a folder that exists only if it is complete. For prepare-data.

An archive is not trusted: its headers may be wrong, and it may unpack to an unbounded amount of data.
"""

import errno
import gzip
import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from coupled.datasets.prepare.strict_tar import open_tar
from coupled.monitoring.terminal import say

PICTURES = (".jpeg", ".jpg", ".png", ".webp")
GIB = 2**30
MOST_FILES = 2_000_000  # ImageNet has 1.3 million
LONGEST_NAME = 1024
COMPARED = 2**26  # bytes; a larger existing file is written again without comparison
LEFT_FREE = 2**28  # bytes of the disk that are left free
# raised by the readers for damaged or malicious archives, in addition to OSError
ARCHIVE_ERRORS = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, struct.error),
    *(ValueError, IndexError, OverflowError, RuntimeError),  # RuntimeError: encrypted, not implemented, nested too deep
)


class Member(NamedTuple):
    """One file to be written: its path below the target, its size in bytes, and how to open its content."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


class RefusedError(ValueError):
    """An error whose message is complete: callers add nothing."""


def archive_members(path: Path, most: int) -> Iterator[Member]:
    """The files in a .zip, .tar or .tar.gz archive, in its order; each must be opened before the next is asked for.

    Hidden files and macOS's resource forks are ignored. Raises ValueError for another kind of file, for one that
    unpacks to much more than `most` bytes, and for a link, a device, a sparse or an encrypted file in it.
    """
    if zipfile.is_zipfile(path):
        yield from _zip_members(path, most)
        return
    with path.open("rb") as file:
        try:
            open_tar(file, most)[0].close()
        except ARCHIVE_ERRORS:
            raise RefusedError(f"{path}: neither a zip nor a tar archive; fetch it again") from None
        file.seek(0)
        yield from tar_members(file, str(path), most)


def tar_members(file: IO[bytes], path: str, most: int) -> Iterator[Member]:
    """The files in an open tar archive, which errors call `path`."""
    with readable(path):
        archive, content = open_tar(file, most)
        with archive:
            for info in archive:
                if info.isdir() or _is_litter(info.name):
                    continue
                if not info.isfile() or info.issparse():
                    kind = "sparse" if info.isfile() else "a link or a device"
                    raise RefusedError(f"{path}: '{shown(info.name)}' is {kind}; only files are unpacked")
                yield Member(info.name, info.size, lambda info=info: _opened(archive, info))  # type: ignore[misc]
            while content.read(2**20):
                pass  # the checksum of a compressed archive is at its end


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn errors inside the `with` block, except those of the disk, into a ValueError: `path` is damaged."""
    try:
        yield
    except RefusedError:
        raise
    except ARCHIVE_ERRORS as error:
        raise RefusedError(f"{path}: damaged or cut off ({error}); fetch it again") from None


def unpack(members: Iterable[Member], target: Path, source: str, most: int) -> None:
    """Write the files into the folder `target`, which exists only when all files are complete; print a summary.

    Until then they are in target.partial. A file that exists there with the same content is not written again; files
    from another archive are removed. A single folder around all files is dropped if it has no images itself. Raises
    ValueError for a path outside the target, an archive that ends early, and more than `most` bytes; raises OSError
    before the disk is full.
    """
    if target.exists():
        say(f"{target}: already exists; delete it to unpack {source} again")
        return
    partial = target.with_name(f"{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    say(f"{target}: unpacking {source}")
    written: set[Path] = set()
    total = 0
    for count, member in enumerate(members, 1):
        total += member.size
        check_amount(count, total, most, source)
        written.add(_write(member, partial, source))
    if not written:
        raise RefusedError(f"{source}: holds no file; fetch it again")
    _remove_others(partial, written)
    os.sync()  # once for all files: a folder with the final name must survive a power failure
    inner = list(partial.iterdir())
    around = len(inner) == 1 and inner[0].is_dir() and inner[0].name not in ("images", "train", "val", "test")
    around = around and not any(path.suffix.lower() in PICTURES for path in inner[0].iterdir())  # that is a class
    (inner[0] if around else partial).rename(target)
    if around:
        partial.rmdir()
    say(f"{target}: {len(written)} files")


def check_amount(files: int, size: int, most: int, source: str) -> None:
    """Raise ValueError for more files or bytes than an archive may unpack to."""
    if size > most:
        raise RefusedError(f"{source}: unpacks to more than {most / GIB:g} GiB; to allow it, set a larger --max-gib")
    if files > MOST_FILES:
        raise RefusedError(f"{source}: holds more than {MOST_FILES:,} files; this is not the original file")


def shown(name: str) -> str:
    """Return a name from an archive, made safe to print."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= 80 else f"{text[:77]}..."


def _zip_members(path: Path, most: int) -> Iterator[Member]:
    with readable(str(path)), zipfile.ZipFile(path) as archive:
        # not is_dir(): with Python 3.11 it fails for an empty name
        every = [info for info in archive.infolist() if info.filename[-1:] != "/" and not _is_litter(info.filename)]
        check_amount(len(every), sum(info.file_size for info in every), most, str(path))
        for info in every:
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                how = "encrypted" if info.flag_bits & 1 else f"compressed by method {info.compress_type}"
                raise RefusedError(
                    f"{path}: '{shown(info.filename)}' is {how}; only plain and deflated files are unpacked"
                )
            yield Member(info.filename, info.file_size, lambda info=info: archive.open(info))  # type: ignore[misc]


def _write(member: Member, folder: Path, source: str) -> Path:
    """Write a file unless it exists; return its path."""
    name = member.name.replace("\\", "/")
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or ":" in "".join(relative.parts[:1]):
        raise RefusedError(
            f"{source}: '{shown(name)}' would be written outside {folder}; this is not the original file"
        )
    if not relative.parts or "\0" in name or len(os.fsencode(name)) > LONGEST_NAME:
        raise RefusedError(f"{source}: '{shown(name)}' is not a file name; this is not the original file")
    path = folder / relative
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with readable(source), member.open() as content:
            if path.is_file() and path.stat().st_size == member.size <= COMPARED:
                # comparing only sizes would keep files from a damaged archive or a power failure
                data = content.read(member.size + 1)
                if path.read_bytes() == data:
                    return path
                content = io.BytesIO(data)
            _check_space(path.parent, member.size)
            with unfinished.open("wb") as file:
                shutil.copyfileobj(content, file)
        if unfinished.stat().st_size != member.size:
            raise RefusedError(f"{source}: '{shown(name)}' ends early; fetch it again")
        unfinished.replace(path)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise RefusedError(f"{source}: '{shown(name)}' is both a file and a folder; delete {folder}") from None
    return path


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size + LEFT_FREE > free:
        text = f"{folder}: {size:,} bytes needed, {free:,} bytes free, {LEFT_FREE:,} of them are kept free"
        raise OSError(errno.ENOSPC, text)


def _remove_others(folder: Path, written: set[Path]) -> None:
    """Remove files that were not written now; another archive or a damaged one has left them."""
    for path in sorted(folder.rglob("*"), reverse=True):  # the content of a folder comes before the folder
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in written:
            path.unlink()


def _opened(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(info)
    assert content is not None, info.name  # only links and devices have none
    return content


def _is_litter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith(".") and part not in (".", "..") for part in parts)
