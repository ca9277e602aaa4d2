"""Keep freed main memory in this process, for speed."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
FORDBLKS = 8  # the place of the free bytes among the numbers of mallinfo2


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for reuse, instead of returning them to the system; return whether that was set.

    Without this, each tensor of 32 MiB or more is mapped anew, and the system zeroes it page by page: 400,000 page
    faults per step of the demo at B = 1,024, a third of the time of a step (docs/performance.md). Results do not
    change. The process keeps its peak memory until it ends. Source: mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))


class _Mallinfo2(ctypes.Structure):
    """The ten numbers of glibc's mallinfo2(3)."""

    _fields_ = (("numbers", ctypes.c_size_t * 10),)


def reusable_bytes() -> int:
    """Return the bytes of main memory that this process has freed and that glibc keeps for it; 0 if unknown."""
    if platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"):  # since glibc 2.33
        return 0
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    return int(mallinfo2().numbers[FORDBLKS])
