"""Processes that begin with everything imported: forked from one server, where a new interpreter imports for 5 s.

`Program` runs a program in one, with an environment, a folder, streams and signals of its own, as if it had been
started anew; what begins with the interpreter (options, Ctrl-C while it imports) needs a real one.
"""

import contextlib
import itertools
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "hypothesis", "pytest", "coupled.coordinator", "coupled.datasets.digits"])

_first = os.getpid() * 97 % 12_000  # several processes test at the same time, each with a pool of ranks
_ports = itertools.cycle([*range(20_000 + _first, 32_000), *range(20_000, 20_000 + _first)])


def process(function: Callable[..., Any], *arguments: Any, daemon: bool = False) -> ForkServerProcess:
    """A process that has begun to run `function(*arguments)`."""
    started = _context.Process(target=function, args=arguments, daemon=daemon)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # the server, which the first call starts, looks nowhere else
    try:
        started.start()
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ |= {} if before is None else {"PYTHONPATH": before}
    return started


def free_port() -> int:
    """A port of the loopback that nobody listens on, and which the system gives nobody who asks for any port."""
    while True:
        port = next(_ports)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class Program:
    """A program of the repository in a process, as much like `subprocess.Popen` as the tests need."""

    def __init__(self, program: Path, *arguments: str | Path, cwd: Path | None = None, **environment: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.files = [Path(self.folder.name, name) for name in ("output", "errors")]
        everything = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        words = [str(program), *map(str, arguments)]
        self.process = process(_run, words, everything, str(cwd or Path.cwd()), list(map(str, self.files)))
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        """As of a `Popen`; None while it runs."""
        return self.process.exitcode

    poll = returncode.fget

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until it ends; its output and errors."""
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
