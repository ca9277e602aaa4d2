"""Read tar archives that are not trusted: bad headers are errors, and memory and time are bounded."""

import gzip
import sys
import tarfile
from typing import IO, cast

LONGEST_HEADER = 2**20  # bytes of a long name or similar header


class _Strict(tarfile.TarInfo):
    """A stricter header: tarfile takes a bad header, or the end of the file, for the end of the archive.

    tarfile also reads names of any length into memory, and seeks backwards for negative sizes.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Strict":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Strict":
        info = super().frombuf(buf, encoding, errors)
        about_others = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")
        if info.size < 0 or (info.type in about_others and info.size > LONGEST_HEADER):
            raise tarfile.ReadError(f"a header with {info.size} bytes")
        return info

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError(f"a file of {count} bytes")
        return cast(int, super()._block(count))  # type: ignore[misc]

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("a sparse file")  # tarfile would read its map of any length into memory


class Bounded:
    """A decompressed stream of which no more than `most` bytes are read."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.file, self.most, self.tell = file, most, file.tell

    def read(self, size: int = -1) -> bytes:
        """As for any file; raise ReadError beyond the limit."""
        self._check(self.tell() + max(size, 0))
        return self.file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        """As for any file; raise ReadError beyond the limit."""
        self._check(place)
        return self.file.seek(place, whence)

    def seekable(self) -> bool:
        """Return True; needed for an archive inside an archive."""
        return True

    def _check(self, place: int) -> None:
        if place > self.most:
            raise tarfile.ReadError(f"it unpacks to more than {self.most:,} bytes")


def open_tar(file: IO[bytes], most: int) -> tuple[tarfile.TarFile, Bounded]:
    """A .tar or .tar.gz archive that is open as `file`, and its stream, of which at most 2 x `most` bytes are read."""
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    # with headers; an uncompressed file cannot yield more bytes than it has
    content = Bounded(cast(IO[bytes], gzip.GzipFile(fileobj=file)), 2 * most) if zipped else Bounded(file, sys.maxsize)
    return tarfile.open(fileobj=cast(IO[bytes], content), mode="r:", tarinfo=_Strict), content
