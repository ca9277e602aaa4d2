"""Archives -> the files in them, and files -> a folder that is complete or not there. Used by prepare_images.py."""

import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from coupled.terminal import say

PICTURES = (".jpeg", ".jpg", ".png", ".webp")


class Member(NamedTuple):
    """One file to be written: where, below the target; its size in bytes; how to open its content."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


class _Strict(tarfile.TarInfo):
    """tarfile takes a bad header and the end of a file for the end of the archive, which are zeros."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Strict":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def archive_members(path: Path) -> Iterator[Member]:
    """The files in a zip or tar archive, in its order; each must be opened before the next is asked for.

    Hidden files and macOS's resource forks are passed over. Raises ValueError for another kind of file, and for a link
    or a device in it.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir() and not _is_litter(info.filename):
                    yield Member(info.filename, info.file_size, lambda info=info: archive.open(info))  # type: ignore[misc]
    elif tarfile.is_tarfile(path):
        with path.open("rb") as file:
            yield from tar_members(file, str(path))
    else:
        raise ValueError(f"{path}: neither a zip nor a tar archive; fetch it again")


def tar_members(file: IO[bytes], path: str) -> Iterator[Member]:
    """The files in an open tar archive, which errors call `path`."""
    with tarfile.open(fileobj=file, tarinfo=_Strict) as archive:
        for info in archive:
            if info.isdir() or _is_litter(info.name):
                continue
            if not info.isfile():
                raise ValueError(f"{path}: '{info.name}' is a link or a device; only files are unpacked")
            yield Member(info.name, info.size, lambda info=info: _opened(archive, info))  # type: ignore[misc]


def unpack(members: Iterable[Member], target: Path, source: str) -> None:
    """Write the files into the folder `target`, which appears when all of them are there; say what was done.

    Until then they lie in target.partial. A file that lies there with its size was written to its end, because each is
    written under another name first; it is not written again. A single folder around all of them is left away, if it
    does not hold pictures itself.
    Raises ValueError for a file that would lie outside, or an archive that ends early.
    """
    if target.exists():
        say(f"{target}: there already; delete it to unpack {source} again")
        return
    partial = target.with_name(f"{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    say(f"{target}: unpacking {source}")
    count = 0
    try:
        for member in members:
            _write(member, partial, source)
            count += 1
    except (EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
        raise ValueError(f"{source}: damaged or cut off ({error}); fetch it again") from None
    if count == 0:
        raise ValueError(f"{source}: holds no file; fetch it again")
    os.sync()  # once for all files: what bears the final name must survive a power cut
    inner = list(partial.iterdir())
    around = len(inner) == 1 and inner[0].is_dir() and inner[0].name not in ("images", "train", "val", "test")
    around = around and not any(path.suffix.lower() in PICTURES for path in inner[0].iterdir())  # that is a class
    (inner[0] if around else partial).rename(target)
    if around:
        partial.rmdir()
    say(f"{target}: {count} files")


def _write(member: Member, folder: Path, source: str) -> None:
    relative = PurePosixPath(member.name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or ":" in relative.parts[0]:
        raise ValueError(f"{source}: '{member.name}' would lie outside of {folder}; this is not the original file")
    path = folder / relative
    if path.is_file() and path.stat().st_size == member.size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with member.open() as content, unfinished.open("wb") as file:
        shutil.copyfileobj(content, file)
    if unfinished.stat().st_size != member.size:
        raise ValueError(f"{source}: '{member.name}' ends early; fetch it again")
    unfinished.replace(path)


def _opened(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(info)
    assert content is not None, info.name  # only links and devices have none
    return content


def _is_litter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith(".") and part not in (".", "..") for part in parts)
