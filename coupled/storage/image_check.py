"""Check before the first step that every image file on the disk decodes, and name all that do not.

The ranks share the work in rounds, so that no rank waits long. Files that decoded are recorded by path, size and
modification time in `CACHE` below the working directory, and are not checked again; this cache may be deleted.

Shape letters: N image files, M those that are not known to decode.
"""

import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from coupled.datasets import AnyImageDataset, ImageFiles
from coupled.datasets._pillow import refuse
from coupled.monitoring.terminal import say
from coupled.parallel.process_group import ProcessGroup, gather_json
from coupled.storage.atomic_files import write_durably
from coupled.stream.decoding import CHUNK, faults, workers_for

CACHE = Path(".cache/coupled")
ROUND = 4096  # images between two exchanges
SILENCE = 10.0  # seconds between two lines


def both_splits(
    train: AnyImageDataset, load: Callable[[str], AnyImageDataset], group: ProcessGroup, workers: int | None
) -> dict[str, AnyImageDataset]:
    """Return both splits, after checking that all image files on the disk decode.

    Ranks other than 0 get {} if the images are in memory, because only rank 0 describes them. Raises ValueError that
    names the files which do not decode.
    """
    if not (group.is_first or isinstance(train, ImageFiles)):
        return {}
    both = {"train": train, "test": load("test")}
    if files := [each for each in both.values() if isinstance(each, ImageFiles)]:
        check_pictures(files, group, workers)
    return both


def check_pictures(splits: Sequence[ImageFiles], group: ProcessGroup, workers: int | None) -> None:
    """Decode every image file that is not in the cache. Raise ValueError on every rank if files do not decode.

    Called by all ranks together with the same splits; rank 0 prints the progress and writes the cache.
    """
    paths_N = [images.root.absolute() / name for images in splits for name in images.files_N]
    cache = _Cache(splits, paths_N) if group.is_first else None
    unknown_M: list[int] = gather_json(cache.unknown() if cache else None)[0]
    bad: list[str] = []
    began = said = time.monotonic()
    if cache and unknown_M:
        say(f"checking that {len(unknown_M):,} of {len(paths_N):,} images decode")
    try:
        for start in range(0, len(unknown_M), ROUND):
            numbers = unknown_M[start : start + ROUND]
            own = numbers[group.rank :: group.world_size]
            parts = [[paths_N[number] for number in own[at : at + CHUNK]] for at in range(0, len(own), CHUNK)]
            texts = [text for part in faults(parts, workers_for(workers, group.device)) for text in part]
            found = gather_json([[number, text] for number, text in zip(own, texts, strict=True) if text])
            of_round = dict(pair for of_rank in found for pair in of_rank)
            bad += [of_round[number] for number in sorted(of_round)]
            if cache:
                cache.decoded += [number for number in numbers if number not in of_round]
                done = start + len(numbers)
                if time.monotonic() - said >= SILENCE and done < len(unknown_M):
                    said = time.monotonic()
                    left = timedelta(seconds=round((said - began) / done * (len(unknown_M) - done)))
                    say(f"{done:,} of {len(unknown_M):,} images decoded, {left} left")
    finally:
        if cache:
            cache.save()
    refuse(bad)


class _Cache:
    """The sorted keys, 8 bytes each, of the image files that decoded; one cache file per dataset root."""

    def __init__(self, splits: Sequence[ImageFiles], paths_N: Sequence[Path]) -> None:
        file_status = (status for images in splits for status in images.file_status)
        # another version of Pillow may not decode the same files
        texts = (f"{PIL.__version__}\0{size}\0{time}\0" for size, time in file_status)
        digests = [
            blake2b(text.encode() + os.fsencode(path), digest_size=8).digest()
            for text, path in zip(texts, paths_N, strict=True)
        ]
        self.keys_N: NDArray[np.uint64] = np.frombuffer(b"".join(digests), np.uint64)
        root = blake2b(os.fsencode(splits[0].root.absolute()), digest_size=8).hexdigest()
        self.path = CACHE / f"decoded_{root}"
        self.decoded: list[int] = []
        data = self.path.read_bytes() if self.path.is_file() else b""
        self.known: NDArray[np.uint64] = np.frombuffer(data[: len(data) // 8 * 8], np.uint64)

    def unknown(self) -> list[int]:
        """Return the numbers of the image files that are not in the cache."""
        found: list[int] = (~np.isin(self.keys_N, self.known)).nonzero()[0].tolist()
        return found

    def save(self) -> None:
        """Add the files that decoded. If the cache cannot be written, the next start decodes them again."""
        if not self.decoded:
            return
        every = np.union1d(self.known, self.keys_N[self.decoded])
        try:
            write_durably(self.path, every.tobytes())
        except OSError as error:
            say(f"{error}; the result of the check is not cached; the next start decodes the images again")
