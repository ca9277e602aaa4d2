"""Damaged copies of a run, one fault at a time: a bit, a digit, a row, a file. For the test of analysis/verify.py.

What is damaged, and how, is a function of the seed. A damage that nobody notices must be harmless by `is_harmless`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILES = (  # of each in turn: text that programs read first, for it has the most ways to be wrong
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
BYTES = ("bit", "cut", "emptied", "deleted", "of another run")  # of files that have neither digits nor rows
DIGITS = b"0123456789abcdef"


class Damage(NamedTuple):
    """What is done to the file at `path`, relative to the run folder; `data` None deletes it."""

    kind: str
    path: str
    data: bytes | None


def damages(run: Path, other: Path, count: int, seed: int) -> Iterator[Damage]:
    """So many different damages of `run`, kinds and files in turn; `other` is a run of other settings."""
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
    """The bytes of a file after the damage; None if it is deleted."""
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
    """Within, the run has the damage; afterwards it is as it was."""
    path = run / damage.path
    before = path.read_bytes()
    path.unlink() if damage.data is None else path.write_bytes(damage.data)
    try:
        yield
    finally:
        path.write_bytes(before)


def is_harmless(run: Path, damage: Damage) -> bool:
    """Whether the file still says the same: JSON that means the same, with other spaces or another spelling.

    Beside that only what `--resume` writes again is harmless: rows after the last save. A run that ended has none.
    """
    if damage.data is None or not damage.path.endswith((".json", ".jsonl")):
        return False
    try:
        return meaning(damage.path, damage.data) == meaning(damage.path, (run / damage.path).read_bytes())
    except ValueError:
        return False


def meaning(path: str, data: bytes) -> list[str]:
    """What a JSON file says, line by line if it is of lines."""
    return [json.dumps(json.loads(each)) for each in (data.splitlines() if path.endswith("l") else [data])]
