"""Embeddings kept on the disk between calls, up to a size; the files longest unused go first.

A file holds the rows [N, D] of one layer. Its name is a digest of all they are computed from, so rows of another
snapshot, image set or choice of images are never taken for them; a digest of the rows themselves stands in the file.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from coupled.snapshots import tensors_digest, write_durably


class EmbeddingCache:
    """Rows by what they come from, in `folder`, never more than `limit` bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def get(self, sources: Any) -> Tensor | None:
        """The rows of `sources` (a JSON value), or None. A damaged file is said, and counts as none."""
        path = self._path(sources)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as handle:
                rows_ND: Tensor = handle.get_tensor("rows")
                digest = (handle.metadata() or {}).get("digest")
        except SafetensorError:
            digest = None
        if digest is None or digest != tensors_digest({"rows": rows_ND}):
            print(f"{path}: damaged; its embeddings are computed again", file=sys.stderr)
            return None
        os.utime(path)
        return rows_ND

    def put(self, sources: Any, rows_ND: Tensor) -> None:
        """Keep the rows of `sources`; older files go until they fit. Rows larger than the limit are not kept."""
        rows_ND = rows_ND.cpu().contiguous()
        data = save({"rows": rows_ND}, metadata={"digest": tensors_digest({"rows": rows_ND})})
        if len(data) > self.limit:
            return
        path = self._path(sources)
        path.unlink(missing_ok=True)
        files = sorted(self.folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime_ns)
        total = sum(file.stat().st_size for file in files)
        for file in files:
            if total + len(data) <= self.limit:
                break
            total -= file.stat().st_size
            file.unlink()
        write_durably(path, data)

    def _path(self, sources: Any) -> Path:
        name = hashlib.blake2b(json.dumps(sources).encode(), digest_size=20).hexdigest()
        return self.folder / f"{name}.safetensors"
