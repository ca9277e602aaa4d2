"""Snapshots whose tensors are read one at a time, their digests computed ahead in threads."""

import contextlib
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from coupled.storage.snapshots import SnapshotStore


class OpenSnapshots:
    """The snapshots of `store`, opened on demand; a context manager that closes them.

    Their digests are computed ahead in threads. The tensors are then read from the page cache, not again from the disk.
    """

    def __init__(self, store: SnapshotStore) -> None:
        self.store = store
        self._held: dict[tuple[str, int], tuple[contextlib.ExitStack, Any]] = {}
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        self._checks: dict[tuple[str, int], Future[None]] = {}

    def __enter__(self) -> "OpenSnapshots":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self.keep([])

    def check_ahead(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Start to compute the digests of these (arm, epoch). `get` waits for them, and raises their errors."""
        for key in wanted:
            if key not in self._checks:
                self._checks[key] = self._pool.submit(self.store.check, *key)

    def get(self, arm: str, epoch: int) -> Any:
        """Return the handle of a snapshot (safetensors). Raises ValueError as `SnapshotStore.open` does."""
        if (arm, epoch) not in self._held:
            if check := self._checks.get((arm, epoch)):
                check.result()
            closing = contextlib.ExitStack()
            self._held[arm, epoch] = closing, closing.enter_context(self.store.open(arm, epoch))
        return self._held[arm, epoch][1]

    def tensor(self, arm: str, epoch: int, name: str) -> torch.Tensor:
        """Read one tensor of a snapshot."""
        found: torch.Tensor = self.get(arm, epoch).get_tensor(name)
        return found

    def keep(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Close all but these (arm, epoch)."""
        for key in self._held.keys() - set(wanted):
            self._held.pop(key)[0].close()

    def shapes(self, arm: str, epoch: int) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the floating-point tensors of encoder and projector, without reading them."""
        snapshot = self.get(arm, epoch)
        slices = {
            name: snapshot.get_slice(name)
            for name in sorted(snapshot.keys())
            if name.startswith(("encoder.", "projector."))
        }
        return {name: tuple(s.get_shape()) for name, s in slices.items() if s.get_dtype() == "F32"}
