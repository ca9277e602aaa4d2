"""A disk cache of embeddings with a size limit; the least recently used files are deleted first.

A file holds the rows [N, D] of one layer. Its name is a digest of everything the rows depend on, such as snapshot,
dataset and selected images. The file also holds a digest of the rows.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from coupled.monitoring.terminal import say
from coupled.storage.atomic_files import write_durably
from coupled.storage.snapshots import tensors_digest


class EmbeddingCache:
    """Rows by their sources, in `folder`, at most `limit` bytes in all."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def get(self, sources: Any) -> Tensor | None:
        """Return the rows of `sources` (a JSON value), or None. A damaged file is reported and ignored."""
        path = self._path(sources)
        try:
            with safe_open(path, framework="pt") as handle:
                rows_ND: Tensor = handle.get_tensor("rows")
                digest = (handle.metadata() or {}).get("digest")
        except FileNotFoundError:  # also if another process has just deleted it
            return None
        except SafetensorError:
            digest = None
        if digest is None or digest != tensors_digest({"rows": rows_ND}):
            say(f"{path}: damaged; its embeddings are computed again", file=sys.stderr)
            return None
        with suppress(FileNotFoundError):
            os.utime(path)
        return rows_ND

    def put(self, sources: Any, rows_ND: Tensor) -> None:
        """Store the rows of `sources`; delete older files until they fit. Rows larger than the limit are not stored."""
        rows_ND = rows_ND.cpu().contiguous()
        data = save({"rows": rows_ND}, metadata={"digest": tensors_digest({"rows": rows_ND})})
        if len(data) > self.limit:
            return
        path = self._path(sources)
        path.unlink(missing_ok=True)
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, file in files:
            if total + len(data) <= self.limit:
                break
            total -= size
            file.unlink(missing_ok=True)
        write_durably(path, data)

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """Yield time of last use, bytes and path. Ranks share the folder, so a file may vanish meanwhile."""
        for file in self.folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):
                about = file.stat()
                yield about.st_mtime_ns, about.st_size, file

    def _path(self, sources: Any) -> Path:
        name = hashlib.blake2b(json.dumps(sources).encode(), digest_size=20).hexdigest()
        return self.folder / f"{name}.safetensors"


def open_cache(folder: Path, gib: float | None) -> EmbeddingCache | None:
    """Return the cache in `folder`/cache with a limit in GiB, or None without a limit."""
    return EmbeddingCache(folder / "cache", int(gib * 2**30)) if gib else None
