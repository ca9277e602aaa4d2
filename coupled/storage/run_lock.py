"""One writer a run folder: the file `lock` in it, locked by the kernel for as long as its process lives. And the folder
stays where it is: files that are open are looked for under their names before more is written.
"""

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

from coupled.parallel.failure_broadcast import RunError
from coupled.storage.atomic_files import FULL, space_named

NAME = "lock"
HELD = (errno.EAGAIN, errno.EACCES)


class MovedError(RunError):
    """A file of the run was moved, replaced or deleted while it was written; `now` is the folder where it is now, if
    that is known.
    """

    def __init__(self, message: str, now: Path | None) -> None:
        super().__init__(message)
        self.now = now


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold the lock of the folder `run`, which is made if it does not exist.

    The kernel frees the lock of a process however it dies, so the file that a killed process leaves is taken over.
    Where a file system knows no locks, a process of this machine is looked up by its number, and one of another machine
    counts as alive. Raises ValueError that says who holds the lock, or why the folder cannot be written; OSError if the
    disk is full.
    """
    path = run / NAME
    try:
        with space_named(path):
            run.mkdir(parents=True, exist_ok=True)
            handle = _take(path)
    except OSError as error:
        if error.errno in (*FULL, errno.EIO):
            raise
        if error.errno == errno.ELOOP:
            raise ValueError(f"--run: '{path}' is a symbolic link, not a file of the run; delete the link") from None
        raise ValueError(f"--run: cannot write to '{run}': {os.strerror(error.errno or 0)}") from None
    try:
        with space_named(path):
            _write(handle)
        yield
    finally:
        own = _is_at(handle, path)
        if own:
            path.unlink()  # before it is freed: a process that opened this file meanwhile looks again
        os.close(handle)
        if own:
            with contextlib.suppress(OSError):
                run.rmdir()  # nothing was begun in it


def check_in_place(handle: int, path: Path) -> None:
    """Raise MovedError unless the open file `handle`, in a run folder, is still the one at `path`."""
    if _is_at(handle, path):
        return
    now = _where(handle)
    if now and now.name == path.name:
        what = f"the run folder '{path.parent}' was moved to '{now.parent}'"
    elif path.parent.is_dir():
        what = f"'{path}' was deleted or replaced"
    else:
        what = f"the run folder '{path.parent}' was deleted or moved"
    raise MovedError(f"{what} while the run was being written; nothing more is written there", now and now.parent)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _where(handle: int) -> Path | None:
    """Where an open file is now; None if it is deleted, or the system does not say."""
    try:
        now = Path(f"/proc/self/fd/{handle}").readlink()
    except OSError:
        return None
    return now if _is_at(handle, now) else None


def _take(path: Path) -> int:
    """Open and lock the file at `path`; its handle."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        holder = _read(handle)
        if not _lock(handle, holder):
            os.close(handle)
            who = f"process {holder.get('process')} on {holder.get('machine')} since {holder.get('since')}"
            raise ValueError(f"--run: '{path.parent}' is being written by {who}; wait for it, or stop it")
        if _is_at(handle, path):
            return handle
        os.close(handle)  # its holder has just left and removed it


def _write(handle: int) -> None:
    about = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%F %T")}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(about).encode(), 0)


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
