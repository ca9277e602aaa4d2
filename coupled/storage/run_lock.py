"""The lock of a run folder: only one run writes to it at a time. The lock is the file `lock`, held with `filelock`.

`check_in_place` detects that the folder was moved or deleted: it checks that an open file is still at its path.
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
LEFTOVERS = (NAME, "run.json.tmp")  # files left by a process that was killed before run.json existed
NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
NO_FOLDER, DENIED = (errno.EEXIST, errno.ENOTDIR), (errno.EACCES, errno.EPERM, errno.EROFS)


class MovedError(RunError):
    """A file of the run was moved, replaced or deleted while the run was writing.

    `now` is the new folder of the file, or None if it is unknown.
    """

    def __init__(self, message: str, now: Path | None) -> None:
        super().__init__(message)
        self.now = now


def has_no_run(run: Path) -> bool:
    """Return whether the folder does not exist, or has only what a start that was killed leaves."""
    return not run.exists() or (run.is_dir() and all(path.name in LEFTOVERS for path in run.iterdir()))


@contextmanager
def run_lock(folder: Path, option: str = "--run-dir") -> Iterator[None]:
    """Hold the lock of `folder` inside the block; the folder is created if it does not exist.

    The kernel releases the lock when its process ends, also after a kill, so the lock file of a killed process is taken
    over. On a file system without locks, the process is looked up by its number if it is on this machine; a process on
    another machine is assumed to be alive. `option` is the name of the folder in messages. Raises ValueError that names
    the holder of the lock, or if `folder` cannot be the folder of a run; OSError if the machine cannot write to it.
    """
    path = folder / NAME
    try:
        make_folder(folder)
        with errors_with_path(path):
            lock = _acquire(path, option)
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(
                f"{option}: '{path}' is a symbolic link, but must be a file of the run; delete the link"
            ) from None
        if error.errno in NO_FOLDER or (option == "--run-dir" and error.errno in DENIED):
            raise ValueError(f"{option}: cannot write to '{folder}': {os.strerror(error.errno or 0)}") from None
        raise
    try:
        yield
    finally:
        own = _is_at(handle, path)
        if own:
            path.unlink()  # before the release: a process that has opened this file meanwhile opens it again
        os.close(handle)
        lock.release()
        if own:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only an empty folder, in which no run was started


def _acquire(path: Path, option: str) -> BaseFileLock:
    """Acquire the lock of the file `path` and return it.

    The file has one line with the process and one with the machine, as filelock's soft locks have.
    """
    lock: BaseFileLock = FileLock(path, timeout=0, fallback_to_soft=False, on_acquired=_write_holder)
    try:
        try:
            lock.acquire()
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            if not path.stat().st_size:
                path.unlink()  # created by the failed attempt; the existence of the file is the soft lock
            lock = SoftFileLock(path, timeout=0.5)
            lock.acquire()
    except Timeout:
        try:
            text, since = path.read_text(errors="replace"), time.localtime(path.stat().st_mtime)
        except FileNotFoundError:  # released meanwhile
            return _acquire(path, option)
        process, machine = (*text.splitlines(), "?", "?")[:2]
        who = f"process {process} on {machine} since {time.strftime('%F %T', since)}"
        raise ValueError(f"{option}: '{path.parent}' is being written by {who}; wait for it, or stop it") from None
    return lock


def _write_holder(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n{socket.gethostname()}\n".encode(), 0)


def check_in_place(handle: int, path: Path) -> None:
    """Raise MovedError unless the open file `handle` is still the file at `path`."""
    if _is_at(handle, path):
        return
    now = _where(handle)
    if now and now.name == path.name:
        what = f"the run folder '{path.parent}' was moved to '{now.parent}'"
    elif path.parent.is_dir():
        what = f"'{path}' was deleted or replaced"
    else:
        what = f"the run folder '{path.parent}' was deleted or moved"
    raise MovedError(
        f"{what} while the run was writing; the run stopped and writes nothing more there", now and now.parent
    )


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _where(handle: int) -> Path | None:
    """Return the current path of an open file; None if it is deleted, or the system cannot tell."""
    try:
        now = Path(f"/proc/self/fd/{handle}").readlink()
    except OSError:
        return None
    return now if _is_at(handle, now) else None
