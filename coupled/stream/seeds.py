"""Named, counter-based seed streams, and torch's determinism switches. No other file seeds a generator.

Every random number of a run comes from a Philox generator (Salmon et al. 2011) keyed by (seed, name, counters), so
streams do not overlap and do not depend on earlier draws. Only `random_raw` is used, because NumPy guarantees its
values across versions, but not those of the `Generator` methods.
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
    """Return the generator of one seed stream, at its beginning.

    The key is a 128-bit blake2b digest of the arguments as JSON, so the counters (0, 1) and (1, 0) give different
    streams, as do (11,) and (1, 1).
    """
    words = json.dumps([int(seed), name, *map(int, counters)])
    key = hashlib.blake2b(words.encode(), digest_size=16, person=b"coupled stream").digest()
    return np.random.Philox(key=int.from_bytes(key, "little"))


def random_uint32(seed: int, name: str, *counters: int, shape: tuple[int, ...]) -> NDArray[np.uint32]:
    """Return the first numbers of a seed stream, uniform uint32; a longer shape starts with the same numbers."""
    count = math.prod(shape)
    raw = philox(seed, name, *counters).random_raw((count + 1) // 2)
    return raw.astype("<u8", copy=False).view("<u4")[:count].astype(np.uint32, copy=False).reshape(shape)


def permutation(n: int, generator: np.random.Philox) -> NDArray[np.int64]:
    """Return a uniform permutation of 0 .. n-1: the stable order of n random 64-bit keys, whose ties are negligible."""
    return np.argsort(generator.random_raw(n), kind="stable")


@contextmanager
def torch_rng(seed: int, name: str, *counters: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generators with a named seed stream inside the block, and restore their states afterwards.

    These are the generators of the CPU and of a CUDA `device`. Use this for library code that draws from a global
    generator, such as the initialisation of a network or dropout.
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


THREADS_A_CORE = 8  # with more threads a step of a second can take minutes


def set_determinism(deterministic: bool, num_threads: int | None, tf32: bool = False) -> None:
    """Set torch's determinism switches and the number of CPU threads.

    With `deterministic`, torch gives the same bits again on the same machine. All switches are set here;
    docs/guarantees.md lists them with their costs. TensorFloat-32 is on only with `tf32`. The cuDNN benchmark is always
    off, because it chooses algorithms by their time. Call this before the first CUDA operation and before the process
    group starts, because the environment variables are read once. Raises ValueError for more than `THREADS_A_CORE`
    threads per core, which would slow each other down.
    """
    most = THREADS_A_CORE * (os.cpu_count() or 1)
    if num_threads is not None and num_threads > most:
        raise ValueError(
            f"num_threads: got {num_threads}; this machine has {os.cpu_count()} cores, allowed is 1 to {most}"
        )
    if deterministic:
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        # torch would fill every new tensor with NaN, which costs time and only shows reads of memory before it is set
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    if num_threads is not None:
        torch.set_num_threads(num_threads)


@contextmanager
def determinism(deterministic: bool, num_threads: int | None, tf32: bool = False) -> Iterator[None]:
    """Call `set_determinism` inside the block; restore torch's switches and the variables afterwards."""
    threads, environment = torch.get_num_threads(), {name: os.environ.get(name) for name in ENVIRONMENT}
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    precision = torch.get_float32_matmul_precision()
    try:
        set_determinism(deterministic, num_threads, tf32)
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = cudnn
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def generator_states(device: torch.device) -> tuple[object, ...]:
    """Return the states of the global generators of torch (CPU and `device`), NumPy and Python, to compare them."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    of_torch = [each.get_state().numpy().tobytes() for each in generators]
    of_numpy = tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in np.random.get_state())
    return (*of_torch, of_numpy, random.getstate())
