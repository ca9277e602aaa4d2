"""Processes forked from a server that has imported torch. A new interpreter needs about 5 s for these imports.

`Program` runs a program in such a process, with separate environment, folder, streams and signals. `python` is an
executable that does so: other programs can start it in place of Python. Tests of interpreter options or of Ctrl-C
during imports need a new interpreter.
"""

import contextlib
import functools
import itertools
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from support import forked_python

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["support.preloaded"])

_environment = threading.RLock()  # starting a process changes PYTHONPATH for a moment
_servers: list[tuple[ForkServerProcess, Any]] = []

_first = os.getpid() * 97 % 12_000  # parallel test processes need different ports
_ports = itertools.cycle([*range(20_000 + _first, 32_000), *range(20_000, 20_000 + _first)])


def process(function: Callable[..., Any], *arguments: Any, daemon: bool = False) -> ForkServerProcess:
    """Start a process that runs `function(*arguments)` and return it."""
    started = _context.Process(target=function, args=arguments, daemon=daemon)
    with _environment:
        return _started(started)


def _started(started: ForkServerProcess) -> ForkServerProcess:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # read by the server, which the first call starts
    try:
        started.start()
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ |= {} if before is None else {"PYTHONPATH": before}
    return started


def free_port() -> int:
    """Return a free loopback port below the range from which the system assigns ports."""
    while True:
        port = next(_ports)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def python() -> Path:
    """Return an executable that runs Python programs in forked processes; it takes the options -c, -m, -P and -u."""
    with _environment:
        return _python()


@functools.cache
def _python() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="forked"))
    ours, theirs = multiprocessing.Pipe()
    server = process(forked_python.serve, str(folder / "socket"), theirs, daemon=True)
    _servers.append((server, ours))
    theirs.close()
    assert ours.recv() == "ready"
    forked_python.script(folder / "python", str(folder / "socket"))
    return folder / "python"


def stop() -> None:
    """End the server of `python`; the next call starts a new one."""
    for server, pipe in _servers:
        pipe.close()
        server.join()
    if _servers:
        shutil.rmtree(python().parent)
    _servers.clear()
    _python.cache_clear()


class Program:
    """A program of the repository in a forked process, with the part of `subprocess.Popen` that the tests need."""

    def __init__(self, program: Path, *arguments: str | Path, cwd: Path | None = None, **environment: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.files = [Path(self.folder.name, name) for name in ("output", "errors")]
        everything = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        words = [str(program), *map(str, arguments)]
        self.process = process(_run, words, everything, str(cwd or Path.cwd()), list(map(str, self.files)))
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        """Return the exit status as `Popen.poll` does; None while the process runs."""
        return self.process.exitcode

    poll = returncode.fget

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until the process ends; return its output and errors."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError(f"{self.pid} has not ended after {timeout} s")
        output, errors = (path.read_text() for path in self.files)
        self.folder.cleanup()
        return output, errors


def _run(words: list[str], environment: dict[str, str], folder: str, files: list[str]) -> None:
    for number, path in enumerate(files, 1):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
