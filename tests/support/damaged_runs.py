"""Damage a run with one fault at a time (a bit, a digit, a row, a file), for the test of analysis/verify.py.

File and fault are a function of the seed. A fault that is not detected must be harmless according to `is_harmless`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILES = (  # text files first
    *("run.json", "steps.csv", "epochs.csv", "log_digests.jsonl", "snapshots/manifest.jsonl"),
    *("snapshots/*/*.safetensors", "checkpoints/*/state.json", "checkpoints/*/*.safetensors"),
)
DAMAGE_KINDS = (
    "bit",
    "digit",
    "row dropped",
    "row twice",
    "rows swapped",
    "cut",
    "emptied",
    "deleted",
    "of another run",
)
BYTES = ("bit", "cut", "emptied", "deleted", "of another run")  # kinds for binary files
DIGITS = b"0123456789abcdef"


class Damage(NamedTuple):
    """The new bytes of the file at `path`, relative to the run folder; None deletes it."""

    kind: str
    path: str
    data: bytes | None


def damages(run: Path, other: Path, count: int, seed: int) -> Iterator[Damage]:
    """Yield `count` different damages of `run` with random kinds and files; `other` is a run of other settings."""
    generator = np.random.Generator(np.random.Philox(seed))
    seen: set[Damage] = set()
    while len(seen) < count:
        files = sorted(run.glob(FILES[generator.integers(len(FILES))]))
        path = files[generator.integers(len(files))]
        kinds = BYTES if path.suffix == ".safetensors" else DAMAGE_KINDS
        kind = kinds[generator.integers(len(kinds))]
        name, before = str(path.relative_to(run)), path.read_bytes()
        foreign = (other / name).read_bytes() if (other / name).is_file() else b""
        damage = Damage(kind, name, damaged(kind, before, foreign, generator))
        if damage.data != before and damage not in seen:
            seen.add(damage)
            yield damage


def damaged(kind: str, before: bytes, foreign: bytes, generator: np.random.Generator) -> bytes | None:
    """Return the bytes of a file after the damage; None if it is deleted."""
    rows, place = before.splitlines(keepends=True), int(generator.integers(len(before)))
    row = int(generator.integers(len(rows)))
    if kind == "bit":
        return before[:place] + bytes([before[place] ^ 1 << int(generator.integers(8))]) + before[place + 1 :]
    if kind == "digit":
        digits = [at for at, byte in enumerate(before) if byte in DIGITS]
        at = digits[generator.integers(len(digits))]
        alike = DIGITS[:10] if before[at] in DIGITS[:10] else DIGITS[10:]
        return before[:at] + bytes([alike[generator.integers(len(alike))]]) + before[at + 1 :]
    if kind == "row dropped":
        return b"".join(rows[:row] + rows[row + 1 :])
    if kind == "row twice":
        return b"".join(rows[: row + 1] + rows[row:])
    if kind == "rows swapped":
        return b"".join([*rows[:row], *reversed(rows[row : row + 2]), *rows[row + 2 :]])
    if kind == "deleted":
        return None
    return {"cut": before[:place], "emptied": b"", "of another run": foreign}[kind]


@contextmanager
def applied(run: Path, damage: Damage) -> Iterator[None]:
    """Apply the damage within the context and restore the file afterwards."""
    path = run / damage.path
    before = path.read_bytes()
    path.unlink() if damage.data is None else path.write_bytes(damage.data)
    try:
        yield
    finally:
        path.write_bytes(before)


def is_harmless(run: Path, damage: Damage) -> bool:
    """Return whether the file is JSON with the same content, for example with other white space.

    Rows after the last checkpoint, which `--resume` writes again, would be harmless too. A finished run has none.
    """
    if damage.data is None or not damage.path.endswith((".json", ".jsonl")):
        return False
    try:
        return meaning(damage.path, damage.data) == meaning(damage.path, (run / damage.path).read_bytes())
    except ValueError:
        return False


def meaning(path: str, data: bytes) -> list[str]:
    """Return the content of a JSON file, or of each line of a JSON-lines file, in normalised form."""
    return [json.dumps(json.loads(each)) for each in (data.splitlines() if path.endswith("l") else [data])]
