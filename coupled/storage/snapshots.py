"""Snapshots: the weights of one arm after an epoch, as safetensors, with a manifest of digests.

A file appears under its name only when it is complete: it is written to a temporary file, fsynced and renamed. Then the
folder is fsynced, and last the manifest gets its line. Nothing is pickled.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from coupled.config.by_name import did_you_mean
from coupled.storage.atomic_files import append_durably, write_durably

FORMAT = "coupled.snapshot.1"
KINDS = ("F32", "I64", "I32", "I16", "I8", "U8", "BOOL")  # types of stored tensors, as safetensors calls them


@dataclass(frozen=True)
class Entry:
    """One line of the manifest; `file` is relative to the snapshot folder, `digest` is blake2b of the file's bytes."""

    arm: str
    epoch: int
    step: int
    file: str
    digest: str
    bytes: int


class BadSnapshotError(ValueError):
    """A snapshot that is missing, damaged or of another run; the message has path, expected and found."""


class SnapshotStore:
    """The snapshots of a run, in `folder`: manifest.jsonl and <arm>/epoch_0000.safetensors.

    `about` has the expected metadata of each snapshot, such as `run` and `settings_sha256`.
    """

    def __init__(self, folder: Path, about: Mapping[str, str] | None = None) -> None:
        self.folder, self.about = folder, dict(about or {})
        self.manifest = folder / "manifest.jsonl"
        self.checked: set[Path] = set()  # files whose digest was already checked

    def entries(self) -> list[Entry]:
        """Return the lines of the manifest in the order written; a half-written last line is ignored.

        Raises ValueError that names file and line if a line is not readable or names a file of another arm or epoch.
        """
        if not self.manifest.is_file():
            return []
        now = self.manifest.stat()
        return list(_entries(self.manifest, now.st_ino, now.st_size, now.st_mtime_ns))

    def arms(self) -> list[str]:
        """Return the arms that have a snapshot, in the order first written."""
        return list(dict.fromkeys(entry.arm for entry in self.entries()))

    def epochs(self, arm: str) -> list[int]:
        """Return the epochs of `arm`, ascending."""
        return sorted(entry.epoch for entry in self.entries() if entry.arm == arm)

    def entry(self, arm: str, epoch: int) -> Entry:
        """Return the manifest line of a snapshot. Raise ValueError that lists the existing arms or epochs."""
        for entry in self.entries():
            if (entry.arm, entry.epoch) == (arm, epoch):
                return entry
        if arm not in (there := self.arms()):
            near = did_you_mean(arm, there)
            raise ValueError(f"{self.folder}: no arm '{arm}' (arms: {', '.join(there) or 'none'}){near}")
        raise ValueError(f"{self.folder}: arm '{arm}' has no snapshot of epoch {epoch} (epochs: {self._span(arm)})")

    def path(self, arm: str, epoch: int) -> Path:
        """Return the file of a snapshot. Raise ValueError if it is not in the manifest, BadSnapshotError if missing."""
        path = self.folder / self.entry(arm, epoch).file
        if not path.is_file():
            raise BadSnapshotError(f"{path}: the manifest lists this snapshot, but the file is missing")
        return path

    def missing(self, arms: Sequence[str], epochs: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Yield (epoch, error) for each snapshot that the manifest lacks, or whose file is gone or has another size."""
        entries = {(entry.arm, entry.epoch): entry for entry in self.entries()}
        for epoch in epochs:
            for arm in arms:
                entry = entries.get((arm, epoch))
                path = self.folder / _file(arm, epoch)
                if entry is None:
                    yield epoch, f"{self.manifest}: arm '{arm}', epoch {epoch}: no snapshot"
                elif not path.is_file() or path.stat().st_size != entry.bytes:
                    yield epoch, f"{path}: the file is missing or does not have its {entry.bytes:,} bytes"

    def write(
        self, arm: str, epoch: int, tensors: Mapping[str, Tensor], *, step: int, metadata: Mapping[str, Any]
    ) -> None:
        """Write one snapshot durably; floating tensors become contiguous float32."""
        self.add(self.write_file(arm, epoch, tensors, step=step, metadata=metadata))

    def write_file(
        self, arm: str, epoch: int, tensors: Mapping[str, Tensor], *, step: int, metadata: Mapping[str, Any]
    ) -> Entry:
        """Write the file of a snapshot without its manifest line; one rank adds the returned entries of all ranks.

        The metadata is one key with sorted JSON, because safetensors writes several keys in random order, and equal
        runs must give equal bytes.
        """
        header = {"format": FORMAT, "arm": arm, "epoch": epoch, "step": step, **self.about, **metadata}
        data = save(
            {name: _as_stored(tensor) for name, tensor in tensors.items()},
            metadata={"coupled": json.dumps(header, sort_keys=True)},
        )
        file = _file(arm, epoch)
        write_durably(self.folder / file, data, self.folder.parent)
        return Entry(arm, epoch, step, file, hashlib.blake2b(data, digest_size=32).hexdigest(), len(data))

    def add(self, entry: Entry) -> None:
        """Append the manifest line of a written file."""
        append_durably(self.manifest, json.dumps(asdict(entry)) + "\n", self.folder.parent)

    def read(self, arm: str, epoch: int) -> dict[str, Tensor]:
        """Return all tensors of a snapshot, digest checked. Raise BadSnapshotError with path, expected and found."""
        with self.open(arm, epoch) as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping

    def check(self, arm: str, epoch: int) -> None:
        """Check the digest of a snapshot, once a store. Raises BadSnapshotError with path, expected and found."""
        path, entry = self.path(arm, epoch), self.entry(arm, epoch)
        if path in self.checked:
            return
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
        if found != entry.digest or path.stat().st_size != entry.bytes:
            sizes = f"{entry.bytes:,} bytes with digest {entry.digest}, found {path.stat().st_size:,} with {found}"
            raise BadSnapshotError(f"{path}: damaged or foreign: expected {sizes}")
        self.checked.add(path)

    @contextmanager
    def open(self, arm: str, epoch: int) -> Iterator[Any]:
        """Open a snapshot lazily, as safetensors' handle with keys(), get_slice() and get_tensor().

        Checks the digest, the metadata and the types of the tensors. Raises BadSnapshotError with path, expected and
        found.
        """
        self.check(arm, epoch)
        path, entry = self.path(arm, epoch), self.entry(arm, epoch)
        try:
            with safe_open(path, framework="pt") as handle:
                self._check(path, handle, entry)
                yield handle
        except SafetensorError as error:
            raise BadSnapshotError(f"{path}: not a readable safetensors file: {error}") from None

    def _check(self, path: Path, handle: Any, entry: Entry) -> None:
        """Raise BadSnapshotError unless an opened snapshot matches its manifest line and `about`."""
        text = (handle.metadata() or {}).get("coupled", "null")
        try:
            header = json.loads(text)
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict):
            raise BadSnapshotError(f"{path}: not a snapshot of a run: its metadata has no JSON object 'coupled'")
        expected = {"format": FORMAT, "arm": entry.arm, "epoch": entry.epoch, "step": entry.step, **self.about}
        wrong = [
            key for key, value in expected.items() if (type(header.get(key)), header.get(key)) != (type(value), value)
        ]
        if wrong:
            of, found = (", ".join(f"{key} {str(tree.get(key))[:80]}" for key in wrong) for tree in (expected, header))
            raise BadSnapshotError(f"{path}: not the expected snapshot: expected {of}, found {found}")
        for name in handle.keys():  # noqa: SIM118 - not a mapping
            kind = handle.get_slice(name).get_dtype()
            if kind not in KINDS:
                raise BadSnapshotError(f"{path}: tensor '{name}': expected one of {', '.join(KINDS)}, found {kind}")

    def cut(self, epoch: int) -> None:
        """Remove manifest lines after `epoch`; their files are overwritten when training reaches these epochs again.

        A half-written last line and temporary files of a killed process are removed too.
        """
        for name in ("manifest.jsonl.tmp", "*/epoch_*.safetensors.tmp"):
            for leftover in self.folder.glob(name):
                leftover.unlink()
        if self.manifest.is_file():
            lines = self.manifest.read_bytes()
            write_durably(self.manifest, lines[: lines.rfind(b"\n") + 1])
        kept = [entry for entry in self.entries() if entry.epoch <= epoch]
        write_durably(self.manifest, "".join(json.dumps(asdict(entry)) + "\n" for entry in kept).encode())

    def _span(self, arm: str) -> str:
        epochs = self.epochs(arm)
        return f"{epochs[0]} to {epochs[-1]}, {len(epochs)} in all" if epochs else "none"


@lru_cache(maxsize=8)
def _entries(manifest: Path, *_state: int) -> tuple[Entry, ...]:
    """Return the entries of a manifest; cached until the file changes."""
    entries = []
    for number, line in enumerate(manifest.read_bytes().rpartition(b"\n")[0].splitlines(), 1):
        try:
            entry = Entry(**json.loads(line))
            for each in fields(entry):
                value = getattr(entry, each.name)
                if type(value) is not each.type or (each.type is int and value < 0):
                    raise ValueError(f"{each.name}: got {value!r}")
            if not re.fullmatch(r"[A-Za-z0-9_-]+", entry.arm) or entry.file != _file(entry.arm, entry.epoch):
                raise ValueError(f"'{entry.file}' is not the file of arm '{entry.arm}', epoch {entry.epoch}")
            entries.append(entry)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{manifest} line {number}: not a snapshot entry: {error}; restore the file") from None
    return tuple(entries)


def snapshot_epochs(epochs: int, every: int, dense_until_epoch: int) -> list[int]:
    """Return the epochs with a snapshot: 0, each up to `dense_until_epoch`, every `every`-th, and the last."""
    return [e for e in range(epochs + 1) if e <= dense_until_epoch or e % every == 0 or e == epochs]


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return blake2b (32 hex digits) over names, shapes, types and bytes of `tensors`, in the order of the names."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _file(arm: str, epoch: int) -> str:
    return f"{arm}/epoch_{epoch:04d}.safetensors"


def _as_stored(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
