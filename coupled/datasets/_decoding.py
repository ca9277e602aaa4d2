"""Decode many images in parallel, on all cores that this process may use.

Threads are not enough: Pillow releases the global interpreter lock while it decodes, but small images spend most of the
time in Python (measured on 20 000 JPEGs of 32 px: two cores are 1.0 to 1.4 times as fast as one with threads). Large
numbers of images are therefore decoded in separate processes (`_decoder.py`), which import neither torch nor the main
program.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from queue import SimpleQueue
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray

from coupled.datasets import _decoder

CHUNK = 64  # images in one request to a process
MANY = 2000  # from this number of images on, starting processes saves time
T = TypeVar("T")
Use = Callable[[NDArray[np.uint8]], T]
Process = subprocess.Popen[bytes]


def decoded(paths: Sequence[str], use: Use[T]) -> Generator[T | str]:
    """Yield for each image, in order, `use(pixels)` with pixels uint8 [H, W, 3], or the error message.

    `use` is called in threads. Raises OSError if a process ends too early.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(cores))
        stack.callback(pool.shutdown, cancel_futures=True)
        idle: SimpleQueue[Process] = SimpleQueue()
        if cores > 1 and len(paths) >= MANY and sys.executable:
            for _ in range(cores):
                process = _started()
                stack.callback(_end, process)
                idle.put(process)
            results = pool.map(lambda chunk: _in_process(chunk, use, idle), chunks)
        else:
            results = pool.map(lambda chunk: [_here(path, use) for path in chunk], chunks)
        for result in results:
            yield from result


def _started() -> Process:
    """A decoding process. It ignores Ctrl-C, and ends when its stdin is closed, also when this program ends."""
    encoding = ["-X", "utf8"] if sys.flags.utf8_mode else []
    command = [sys.executable, *encoding, "-P", "-W", "ignore", _decoder.__file__]
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, env=os.environ | single, start_new_session=True)


def _end(process: Process) -> None:
    process.kill()
    with suppress(BrokenPipeError):
        process.communicate()


def _here(path: str, use: Use[T]) -> T | str:
    try:
        return use(_decoder.read_pixels(path))
    except ValueError as error:
        return str(error)


def _in_process(paths: Sequence[str], use: Use[T], idle: "SimpleQueue[Process]") -> list[T | str]:
    process = idle.get()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(paths).encode() + b"\n")
        process.stdin.flush()
        results: list[T | str] = []
        for _ in paths:
            high, wide, text = _decoder.HEADER.unpack(_bytes(process.stdout, _decoder.HEADER.size))
            if text:
                results.append(_bytes(process.stdout, text).decode("utf-8", "surrogatepass"))
            else:
                pixels = np.frombuffer(_bytes(process.stdout, high * wide * 3), np.uint8)
                results.append(use(pixels.reshape(high, wide, 3)))
    except (BrokenPipeError, EOFError):
        status = process.wait()
        raise ChildProcessError(f"a decoding process ended with status {status}; start the command again") from None
    finally:
        idle.put(process)
    return results


def _bytes(stream: IO[bytes], count: int) -> bytearray:
    data = bytearray(count)
    if stream.readinto(data) != count:  # type: ignore[attr-defined]
        raise EOFError
    return data
