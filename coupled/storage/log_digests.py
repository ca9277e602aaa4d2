"""log_digests.jsonl: one line per checkpoint with the sizes of steps.csv and epochs.csv and digests of their new bytes.

The digests show a changed digit, a removed row or the table of another run. Each line has the digest of the settings,
which shows tables of another run even if its log_digests.jsonl was copied with them.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from coupled.storage.atomic_files import append_durably, write_durably

FILE = "log_digests.jsonl"
TABLES = ("steps.csv", "epochs.csv")


@dataclass(frozen=True)
class LogState:
    """One line: completed epochs and steps, and for each table its size in bytes and the blake2b of the new bytes."""

    settings_sha256: str
    epoch: int
    step: int
    steps_bytes: int
    steps_digest: str
    epochs_bytes: int
    epochs_digest: str

    def table(self, name: str) -> tuple[int, str]:
        """Return size in bytes and digest of the table with this file name."""
        of_steps = name == TABLES[0]
        return (self.steps_bytes, self.steps_digest) if of_steps else (self.epochs_bytes, self.epochs_digest)


def digest(data: bytes = b"") -> hashlib.blake2b:
    """Return a hash object that has been updated with `data`."""
    return hashlib.blake2b(data, digest_size=32)


def append(run: Path, state: LogState) -> None:
    """Write a line durably."""
    append_durably(run / FILE, json.dumps(asdict(state)) + "\n", run)


def read(run: Path, settings_sha256: str) -> list[LogState]:
    """Return the complete lines; [] if there is no file.

    Raises ValueError that names file and line if a line is not one that a run with these settings writes.
    """
    path, found = run / FILE, []
    lines = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            state = LogState(**json.loads(line))
            wrong = [each.name for each in fields(state) if type(getattr(state, each.name)) is not each.type]
            if wrong:
                raise ValueError(f"{wrong[0]}: got {getattr(state, wrong[0])!r}")
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} line {number}: not a valid line: {error}") from None
        if state.settings_sha256 != settings_sha256:
            was = f"expected settings_sha256 {settings_sha256}, found {state.settings_sha256[:64]}"
            raise ValueError(f"{path} line {number}: of a run with other settings: {was}")
        found.append(state)
    return found


def cut(run: Path, settings_sha256: str, step: int) -> LogState | None:
    """Remove the lines after `step` and a half-written one; return the last remaining line, if there is one."""
    kept = [state for state in read(run, settings_sha256) if state.step <= step]
    if (run / FILE).is_file():
        write_durably(run / FILE, "".join(json.dumps(asdict(state)) + "\n" for state in kept).encode())
    return kept[-1] if kept else None


def changed(run: Path, lines: Sequence[LogState], arms: int) -> Iterator[str]:
    """Yield the first rows of each table that differ from what the run wrote, up to the last of `lines`.

    `arms` is the number of arms of the run.
    """
    for name in TABLES:
        path = run / name
        data, start, after = b"", 0, 0
        if lines and path.is_file():
            with path.open("rb") as file:  # rows after the last line are not checked
                data = file.read(min(max([0, *(line.table(name)[0] for line in lines)]), path.stat().st_size))
        for line in lines:
            end, expected = line.table(name)
            rows = line.step if name == TABLES[0] else line.epoch * arms
            as_written = digest(data[start:end]).hexdigest() == expected and end <= len(data)
            if not as_written or data[:end].count(b"\n") != 1 + rows:
                rows_of = f"the rows of steps {after + 1} to {line.step}" if line.step else "the header"
                yield f"{path}: {rows_of}: not as written (their digest in {FILE} differs)"
                break
            start, after = end, line.step
