"""One writer a run folder: the file `lock` in it, locked by the kernel for as long as its process lives."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "lock"
HELD = (errno.EAGAIN, errno.EACCES)


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold the lock of the folder `run`, which is made if it does not exist.

    The kernel frees the lock of a process however it dies, so the file that a killed process leaves is taken over.
    Where a file system knows no locks, a process of this machine is looked up by its number, and one of another machine
    counts as alive. Raises ValueError that says who holds the lock.
    """
    path = run / NAME
    try:
        run.mkdir(parents=True, exist_ok=True)
        handle = _take(path)
    except OSError as error:
        raise ValueError(f"--run: cannot write to '{run}': {error.strerror}") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is freed: a process that opened this file meanwhile looks again
        os.close(handle)
        with contextlib.suppress(OSError):
            run.rmdir()  # nothing was begun in it


def _take(path: Path) -> int:
    """Open and lock the file at `path`; its handle."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        holder = _read(handle)
        if not _lock(handle, holder):
            os.close(handle)
            who = f"process {holder.get('process')} on {holder.get('machine')} since {holder.get('since')}"
            raise ValueError(f"--run: '{path.parent}' is being written by {who}; wait for it, or stop it")
        if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
            about = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%F %T")}
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(about).encode(), 0)
            return handle
        os.close(handle)  # its holder has just left and removed it


def _lock(handle: int, holder: dict[str, Any]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return not holder or (holder.get("machine") == socket.gethostname() and not _alive(holder.get("process")))
    return True


def _alive(process: Any) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, TypeError):  # gone, or the file says nothing
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def _read(handle: int) -> dict[str, Any]:
    try:
        content = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
