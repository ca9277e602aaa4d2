"""Measure whether lossless compression makes snapshots smaller at the speed of the disk.

    python scripts/benchmarks/snapshot_compression.py FILE.safetensors [--before FILE.safetensors]

The float32 values of the file are compressed as they are and with byte shuffle: first the lowest byte of every value,
then the second, and so on. With `--before` the exclusive or with an earlier snapshot of the same arm is compressed as
well. `bits` is the entropy of each byte, from the lowest to the highest; a coder of single bytes reaches at most the
ratio `limit` = 32 / (their sum). Speeds are in MB of float32 a second, on one thread, shuffle included; that of the
disk is a write with fsync into the folder of the file. zstd and lz4 are measured if pyarrow is installed (extra [hf]).
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

REPEATS = 5  # the median is printed
Bits = NDArray[np.uint32]


def values(path: Path) -> Bits:
    """Return the bits of all float32 values of a snapshot, tensor after tensor in the order of their names."""
    tensors = load_file(path)
    floats = [tensors[name].reshape(-1) for name in sorted(tensors) if tensors[name].dtype == np.float32]
    return np.concatenate(floats).view("<u4")


def plain(values_N: Bits) -> bytes:
    """Return the bytes as they are in the file."""
    return values_N.tobytes()


def shuffled(values_N: Bits) -> bytes:
    """Return the lowest byte of every value, then the second, and so on."""
    return values_N.view(np.uint8).reshape(-1, 4).T.tobytes()


def byte_entropies(values_N: Bits) -> list[float]:
    """Return the entropy in bits of each of the four bytes, from the lowest to the highest."""
    found = []
    for plane_N in values_N.view(np.uint8).reshape(-1, 4).T:
        shares = np.bincount(plane_N, minlength=256) / len(plane_N)
        shares = shares[shares > 0]
        found.append(float(-(shares * np.log2(shares)).sum()))
    return found


def codecs() -> dict[str, Callable[[bytes], bytes]]:
    """Return the compression of every codec that is installed, by name."""
    found: dict[str, Callable[[bytes], bytes]] = {
        f"zlib {level}": partial(zlib.compress, level=level) for level in (1, 6)
    }
    if importlib.util.find_spec("pyarrow"):
        import pyarrow

        for name, level in (("zstd", 1), ("zstd", 9), ("lz4", 1)):
            found[f"{name} {level}"] = partial(pyarrow.Codec(name, compression_level=level).compress, asbytes=True)
    return found


def seconds(call: Callable[[], object]) -> float:
    """Return the median time of a call."""
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def write(folder: Path, data: bytes) -> None:
    """Write the data to a temporary file, with fsync."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--before", type=Path)
    options = parser.parse_args()
    values_N = values(options.file)
    kinds = {"file": values_N} | ({"change": values_N ^ values(options.before)} if options.before else {})
    megabytes = values_N.nbytes / 1e6
    disk = megabytes / seconds(partial(write, options.file.resolve().parent, values_N.tobytes()))
    print(f"{options.file}: {megabytes:.1f} MB of float32; the disk writes {disk:.0f} MB/s")
    for kind, of_kind_N in kinds.items():
        entropies = byte_entropies(of_kind_N)
        shown = " ".join(f"{each:.2f}" for each in entropies)
        print(f"{kind}: bits {shown}, limit {32 / max(sum(entropies), 1e-9):.3f}")
        for codec, compress in codecs().items():
            for arrange in (plain, shuffled):
                size = len(compress(arrange(of_kind_N)))
                speed = megabytes / seconds(lambda: compress(arrange(of_kind_N)))  # noqa: B023 - called at once
                print(f"  {codec:7} {arrange.__name__:8} ratio {values_N.nbytes / size:.3f}  {speed:6.0f} MB/s")


if __name__ == "__main__":
    main()
