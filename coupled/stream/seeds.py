"""Named, counter-based seed streams, and torch's determinism switches: the only place where anything is seeded.

Every random number of a run comes from a Philox generator (Salmon et al. 2011) keyed by (seed, name, counters), so
streams neither overlap nor depend on what was drawn before. Only `random_raw` is used: NumPy promises its values
across versions, not those of the `Generator` methods.
"""

import hashlib
import json
import math
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray


def philox(seed: int, name: str, *counters: int) -> np.random.Philox:
    """The generator of one stream, at its beginning.

    The key is a 128-bit blake2b of the JSON of the arguments: the counters (0, 1) and (1, 0) differ, as do (11,) and
    (1, 1).
    """
    words = json.dumps([int(seed), name, *map(int, counters)])
    key = hashlib.blake2b(words.encode(), digest_size=16, person=b"coupled stream").digest()
    return np.random.Philox(key=int.from_bytes(key, "little"))


def random_uint32(seed: int, name: str, *counters: int, shape: tuple[int, ...]) -> NDArray[np.uint32]:
    """The first numbers of a stream, uniform over all 32-bit integers; a longer shape begins with a shorter one's."""
    count = math.prod(shape)
    raw = philox(seed, name, *counters).random_raw((count + 1) // 2)
    return raw.astype("<u8", copy=False).view("<u4")[:count].astype(np.uint32, copy=False).reshape(shape)


def permutation(n: int, generator: np.random.Philox) -> NDArray[np.int64]:
    """A uniform permutation of 0 .. n-1: the stable order of n random keys (64 bits, so a tie is negligible)."""
    return np.argsort(generator.random_raw(n), kind="stable")


@contextmanager
def torch_rng(seed: int, name: str, *counters: int, device: torch.device | None = None) -> Iterator[None]:
    """Inside the block torch's global generators, of the CPU and of a CUDA `device`, follow the named stream;
    afterwards they are as they were before.

    For library code that draws from a global generator, such as the initialisation of a network or dropout: inside the
    block it does not depend on the global state, and outside nobody notices.
    """
    generators = [torch.default_generator]
    if device is not None and device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(int(philox(seed, name, *counters).random_raw(1)[0] >> np.uint64(1)))
    try:
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


# Read by the libraries when they start; what a user has set stays. Each with what it costs.
ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS repeats itself; 24 MiB of GPU memory a process
    "NCCL_ALGO": "Ring",  # one order of summation; more latency than trees on many machines
}


THREADS_A_CORE = 8  # with more a step that takes a second can take minutes


def set_determinism(deterministic: bool, num_threads: int | None, tf32: bool = False) -> None:
    """Make torch repeat itself bit for bit on the same machine (`deterministic`), on `num_threads` CPU threads.

    Every switch that bears on this is here; docs/guarantees.md lists them with their costs. TensorFloat-32 is on only
    if `tf32` asks for that precision; cuDNN's timing of algorithms is always off, because it chooses by the clock. Call
    it before the first CUDA operation and before the process group starts: the variables are read once. Raises
    ValueError for so many threads that they would wait for each other.
    """
    most = THREADS_A_CORE * (os.cpu_count() or 1)
    if num_threads is not None and num_threads > most:
        raise ValueError(
            f"num_threads: got {num_threads}; this machine has {os.cpu_count()} cores, allowed is 1 to {most}"
        )
    if deterministic:
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    if num_threads is not None:
        torch.set_num_threads(num_threads)


@contextmanager
def determinism(deterministic: bool, num_threads: int | None, tf32: bool = False) -> Iterator[None]:
    """`set_determinism` inside the block; afterwards torch's switches and the variables are as they were before."""
    threads, environment = torch.get_num_threads(), {name: os.environ.get(name) for name in ENVIRONMENT}
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    precision = torch.get_float32_matmul_precision()
    try:
        set_determinism(deterministic, num_threads, tf32)
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = cudnn
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def generator_states(device: torch.device) -> tuple[object, ...]:
    """The states of the global generators of torch, for the CPU and `device`, NumPy and Python: equal if none moved."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    of_torch = [each.get_state().numpy().tobytes() for each in generators]
    of_numpy = tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in np.random.get_state())
    return (*of_torch, of_numpy, random.getstate())
