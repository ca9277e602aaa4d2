"""state.json of a checkpoint: its content, its digest and its checks."""

import hashlib
import json
import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from coupled.storage.atomic_files import errors_with_path

FORMAT = "coupled.checkpoint.1"
FILE = "state.json"
ARM = re.compile(r"[A-Za-z0-9_-]+")


class CheckpointHeader(NamedTuple):
    """The content of state.json without its format and its digest; `digests` are those of the arms' files."""

    settings_sha256: str
    step: int
    epoch: int
    sums: dict[str, list[float]]
    digests: dict[str, str]

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the header, one line each: key, expected and found value."""
        for key, kind in {"settings_sha256": str, "step": int, "epoch": int, "sums": dict, "digests": dict}.items():
            found = type(getattr(self, key))
            if found is not kind:
                yield f"{key}: expected {kind.__name__}, found {found.__name__}"
                return
        if not 0 <= self.epoch <= self.step:
            yield f"epoch: expected 0 to {self.step}, the steps done, found {self.epoch}"
        for arm, value in self.digests.items():
            if not ARM.fullmatch(arm) or not isinstance(value, str):
                yield f"digests: expected an arm and the digest of its file, found '{arm}' and {value}"
        for arm, numbers in self.sums.items():
            finite = isinstance(numbers, list) and all(isinstance(each, float) and isfinite(each) for each in numbers)
            if arm not in self.digests or not finite:
                yield f"sums: expected an arm and finite numbers, found '{arm}' and {numbers}"


def encode_header(header: CheckpointHeader) -> bytes:
    """Return the bytes of state.json: format, `header` and, last, the digest of the canonical JSON of both."""
    content = {"format": FORMAT, **header._asdict()}
    seal = digest(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    return json.dumps({**content, "digest": seal}, indent=1).encode()


def read_header(checkpoint: Path, settings_sha256: str | None) -> CheckpointHeader:
    """Return the header of a checkpoint.

    Raises ValueError that names the file and what is wrong, also if the header has another `settings_sha256`; None
    accepts any.
    """
    path = checkpoint / FILE
    if not path.is_file():
        raise ValueError(f"{path}: missing")
    with errors_with_path(path):
        data = path.read_bytes()
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged: not valid JSON: {error}") from None
    found = content.pop("format", None) if isinstance(content, dict) else None
    if found != FORMAT:
        older = (
            " (written by another version of coupled; use that version to continue the run)"
            if str(found).startswith("coupled.")
            else ""
        )
        raise ValueError(f"{path}: expected format {FORMAT}, found {found}{older}")
    seal = content.pop("digest", None)
    if content.keys() != set(CheckpointHeader._fields):
        raise ValueError(
            f"{path}: damaged: expected the keys {', '.join(CheckpointHeader._fields)}, found {', '.join(content)}"
        )
    header = CheckpointHeader(**content)
    if encode_header(header) != data:  # compares bytes: equal JSON in other bytes was not written by this code
        raise ValueError(f"{path}: damaged: its content does not match its digest {seal}")
    for fault in header.faults():
        raise ValueError(f"{path}: {fault}")
    if header.step != step_of(checkpoint):
        raise ValueError(f"{path}: step: expected the step of its folder, {checkpoint.name}, found {header.step}")
    if settings_sha256 not in (None, header.settings_sha256):
        both = f"expected settings_sha256 {settings_sha256}, found {header.settings_sha256}"
        raise ValueError(f"{path}: of a run with other settings: {both}")
    return header


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint's folder; -1 if `path` is not a checkpoint."""
    number = path.name.removeprefix("step_")
    named = re.fullmatch("[0-9]{8,18}", number) is not None and path.name == f"step_{int(number):08d}"
    return int(number) if named and path.is_dir() else -1


def digest(data: bytes) -> str:
    """Return the blake2b digest of `data` as 64 hex digits."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()
