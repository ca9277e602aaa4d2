"""Snapshots that stay open while they are needed, so that each is opened, and its digest checked, once."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from coupled.storage.snapshots import SnapshotStore


class OpenSnapshots:
    """The snapshots of `store`, opened when they are asked for; a context manager that closes them."""

    def __init__(self, store: SnapshotStore) -> None:
        self.store = store
        self._held: dict[tuple[str, int], tuple[ExitStack, Any]] = {}

    def __enter__(self) -> "OpenSnapshots":
        return self

    def __exit__(self, *error: object) -> None:
        self.keep([])

    def get(self, arm: str, epoch: int) -> Any:
        """The open snapshot (safetensors' handle). Raises ValueError as `SnapshotStore.open` does."""
        if (arm, epoch) not in self._held:
            closing = ExitStack()
            self._held[arm, epoch] = closing, closing.enter_context(self.store.open(arm, epoch))
        return self._held[arm, epoch][1]

    def tensor(self, arm: str, epoch: int, name: str) -> Tensor:
        """One tensor of a snapshot; nothing else of it is read."""
        found: Tensor = self.get(arm, epoch).get_tensor(name)
        return found

    def keep(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Close all but these (arm, epoch)."""
        for key in self._held.keys() - set(wanted):
            self._held.pop(key)[0].close()

    def shapes(self, arm: str, epoch: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the floating tensors of encoder and projector; no weight is read."""
        snapshot = self.get(arm, epoch)
        slices = {
            name: snapshot.get_slice(name)
            for name in sorted(snapshot.keys())
            if name.startswith(("encoder.", "projector."))
        }
        return {name: tuple(s.get_shape()) for name, s in slices.items() if s.get_dtype() == "F32"}
