"""One pool of processes for all tests that need several ranks, started once per test run.

`run(world_size, function, *arguments)` calls `function(*arguments)` on that many ranks at once. It returns the values
of all ranks or raises `RankError` with the tracebacks. The function must be at the top level of a test file. In it,
`process_group("cpu")` joins the ranks, as a program under torchrun does.
"""

import importlib.util
import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from support import forked
from support.forked import free_port

MOST = 4
PATIENCE_SECONDS = 300
_pool: list[tuple[Any, Connection]] = []


class RankError(AssertionError):
    """A rank failed; the message is its traceback."""


def run(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return the value of `function(*arguments)` on each of `world_size` ranks, in the order of ranks."""
    assert 1 <= world_size <= MOST
    while len(_pool) < world_size:
        _pool.append(_start())
    environment = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    place = (function.__code__.co_filename, function.__qualname__)
    for rank, (_, pipe) in enumerate(_pool[:world_size]):
        pipe.send((place, arguments, {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}))
    answers = []
    for _, pipe in _pool[:world_size]:
        if not pipe.poll(PATIENCE_SECONDS):
            stop()
            raise RankError(f"{function.__qualname__} did not end within {PATIENCE_SECONDS} seconds")
        answers.append(pipe.recv())
    failed = [text for text, _ in answers if text]
    if failed:
        raise RankError("\n".join(failed))
    return [value for _, value in answers]


def stop() -> None:
    """End the pool; the next `run` starts a new one."""
    for process, pipe in _pool:
        pipe.close()
        process.terminate()
        process.join()
    _pool.clear()


def _start() -> tuple[Any, Connection]:
    ours, theirs = multiprocessing.Pipe()
    return forked.process(_serve, theirs, daemon=True), ours


def _serve(pipe: Connection) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    files: dict[str, Any] = {}
    while True:
        try:
            (file, name), arguments, environment = pipe.recv()
        except EOFError:
            return
        os.environ.update(environment)
        try:
            if file not in files:
                files[file] = _load(file)
            answer = (None, getattr(files[file], name)(*arguments))
        except BaseException:  # sent to the test
            answer = (f"rank {environment['RANK']}:\n{traceback.format_exc()}", None)
        pipe.send(answer)


def _load(file: str) -> Any:
    """Import the test file in this process and return the module."""
    spec = importlib.util.spec_from_file_location(f"on_ranks_{Path(file).stem}", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
