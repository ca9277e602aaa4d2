"""log_digests.jsonl: for every save of a checkpoint how long steps.csv and epochs.csv were, and a digest of what each
had gained since the line before. So a changed digit, a cut row or another run's table is noticed. Each line says of
which settings it is, so that another run's tables are noticed, too, when this file came with them.
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
    """One line: whole epochs and steps done, and of each table its bytes and the blake2b of those that are new."""

    settings_sha256: str
    epoch: int
    step: int
    steps_bytes: int
    steps_digest: str
    epochs_bytes: int
    epochs_digest: str

    def table(self, name: str) -> tuple[int, str]:
        """Bytes and digest of the table with this file name."""
        of_steps = name == TABLES[0]
        return (self.steps_bytes, self.steps_digest) if of_steps else (self.epochs_bytes, self.epochs_digest)


def digest(data: bytes = b"") -> hashlib.blake2b:
    """The hash of the lines, begun with `data`."""
    return hashlib.blake2b(data, digest_size=32)


def append(run: Path, state: LogState) -> None:
    """Write a line durably."""
    append_durably(run / FILE, json.dumps(asdict(state)) + "\n")


def read(run: Path, settings_sha256: str) -> list[LogState]:
    """The whole lines; none without the file.

    Raises ValueError naming file and line if one is not what a run of these settings writes.
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
            raise ValueError(f"{path} line {number}: not what a save of the run writes: {error}") from None
        if state.settings_sha256 != settings_sha256:
            was = f"expected settings_sha256 {settings_sha256}, found {state.settings_sha256[:64]}"
            raise ValueError(f"{path} line {number}: of a run with other settings: {was}")
        found.append(state)
    return found


def cut(run: Path, settings_sha256: str, step: int) -> LogState | None:
    """Forget the lines after `step`, and one that is half written; the last of the others, if there is one."""
    kept = [state for state in read(run, settings_sha256) if state.step <= step]
    if (run / FILE).is_file():
        write_durably(run / FILE, "".join(json.dumps(asdict(state)) + "\n" for state in kept).encode())
    return kept[-1] if kept else None


def changed(run: Path, lines: Sequence[LogState], arms: int) -> Iterator[str]:
    """What is in the tables of a run with so many `arms` up to the last line, and was not written so: the first place
    of each table.
    """
    for name in TABLES:
        path = run / name
        data, start, after = b"", 0, 0
        if lines and path.is_file():
            with path.open("rb") as file:  # rows after the last save are not looked at, however many
                data = file.read(min(max([0, *(line.table(name)[0] for line in lines)]), path.stat().st_size))
        for line in lines:
            end, expected = line.table(name)
            rows = line.step if name == TABLES[0] else line.epoch * arms
            as_written = digest(data[start:end]).hexdigest() == expected and end <= len(data)
            if not as_written or data[:end].count(b"\n") != 1 + rows:
                rows_of = f"the rows of steps {after + 1} to {line.step}" if line.step else "the header"
                yield f"{path}: {rows_of}: not as written (see {FILE})"
                break
            start, after = end, line.step
