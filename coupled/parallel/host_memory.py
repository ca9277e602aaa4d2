"""How this process keeps main memory that it has freed."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep every block that is freed, for the next one, instead of handing it back; whether this is glibc.

    Without it a tensor of 32 MiB and more is mapped anew each time, and the system zeroes it page by page: at B = 1,024
    of the demo 400,000 page faults a step, a third of its time (docs/performance.md). No result changes; a process then
    holds its peak to its end. Source: mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))
