"""One writer a run folder: the file `lock` in it, held with `filelock`. And the folder stays where it is: files that
are open are looked for under their names before more is written.
"""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from coupled.parallel.failure_broadcast import RunError
from coupled.storage.atomic_files import errors_with_path, make_folder

NAME = "lock"
NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
NO_FOLDER, DENIED = (errno.EEXIST, errno.ENOTDIR), (errno.EACCES, errno.EPERM, errno.EROFS)


class MovedError(RunError):
    """A file of the run was moved, replaced or deleted while it was written; `now` is the folder where it is now, if
    that is known.
    """

    def __init__(self, message: str, now: Path | None) -> None:
        super().__init__(message)
        self.now = now


@contextmanager
def run_lock(folder: Path, option: str = "--run-dir") -> Iterator[None]:
    """Hold the lock of `folder`, which is made if it does not exist and which `option` names in messages.

    The kernel frees the lock of a process however it dies, so the file that a killed process leaves is taken over.
    Where a file system knows no locks, a process of this machine is looked up by its number, and one of another machine
    counts as alive. Raises ValueError that says who holds the lock, or that `option` names no folder for a run; OSError
    if the machine cannot write there.
    """
    path = folder / NAME
    try:
        make_folder(folder)
        with errors_with_path(path):
            lock = _acquire(path, option)
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{option}: '{path}' is a symbolic link, not a file of the run; delete the link") from None
        if error.errno in NO_FOLDER or (option == "--run-dir" and error.errno in DENIED):
            raise ValueError(f"{option}: cannot write to '{folder}': {os.strerror(error.errno or 0)}") from None
        raise
    try:
        yield
    finally:
        own = _is_at(handle, path)
        if own:
            path.unlink()  # before it is freed: a process that opened this file meanwhile looks again
        os.close(handle)
        lock.release()
        if own:
            with contextlib.suppress(OSError):
                folder.rmdir()  # nothing was begun in it


def _acquire(path: Path, option: str) -> BaseFileLock:
    """The lock of the file `path`, held. Its content is that of filelock's soft locks: process and machine, a line
    each.
    """
    lock: BaseFileLock = FileLock(path, timeout=0, fallback_to_soft=False, on_acquired=_write_holder)
    try:
        try:
            lock.acquire()
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            if not path.stat().st_size:
                path.unlink()  # the attempt has just made it; a soft lock is its file
            lock = SoftFileLock(path, timeout=0.5)
            lock.acquire()
    except Timeout:
        try:
            text, since = path.read_text(errors="replace"), time.localtime(path.stat().st_mtime)
        except FileNotFoundError:  # its holder has just left
            return _acquire(path, option)
        process, machine = (*text.splitlines(), "?", "?")[:2]
        who = f"process {process} on {machine} since {time.strftime('%F %T', since)}"
        raise ValueError(f"{option}: '{path.parent}' is being written by {who}; wait for it, or stop it") from None
    return lock


def _write_holder(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n{socket.gethostname()}\n".encode(), 0)


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
