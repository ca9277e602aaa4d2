"""Check that steps.csv and epochs.csv of a run are as training wrote them, and that the checkpoints match."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path

from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import LARGEST
from coupled.config.schema import Settings
from coupled.storage import checkpoints, log_digests
from coupled.storage.log_digests import TABLES, LogState


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the complete rows of a table as text, unchecked. Raises ValueError if it is missing or too large."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a table of {path.stem}, found no file")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path}: {size:,} bytes long; a table has at most {LARGEST:,}")
    text = path.read_text(encoding="utf-8", errors="replace")
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def input_columns(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the columns of steps.csv with input digests, one per stream."""
    return [column for column in (rows[0] if rows else ()) if column and column.endswith("inputs_digest")]


def faults_of_rows(run: Path, settings: Settings, lines: Sequence[LogState]) -> Iterator[str]:
    """Check both tables up to the last save against the digests that training wrote, and the format of all rows.

    Rows after the last save exist in a running or killed run. They have no digest, and `--resume` writes them again.
    """
    arms = list(settings.arms)
    if not lines:
        yield f"{run / log_digests.FILE}: expected one line per save, found none; the rows cannot be checked"
    yield from log_digests.changed(run, lines, len(arms))
    for name in TABLES if lines and lines[-1].epoch == settings.epochs else ():
        path, size = run / name, lines[-1].table(name)[0]
        if path.is_file() and path.stat().st_size > size:
            yield f"{path}: the run ended with {size:,} bytes, found {path.stat().st_size:,}"
    yield from faults_of_steps(run / "steps.csv", arms)
    yield from faults_of_epochs(run / "epochs.csv", arms)


def faults_of_steps(path: Path, arms: Sequence[str]) -> Iterator[str]:
    """Yield the first row that is not the next step with its digests and finite losses of all arms."""
    try:
        rows = read_rows(path)
    except (ValueError, csv.Error) as error:
        yield str(error)
        return
    first = ["epoch", "step", *(input_columns(rows) or ["inputs_digest"])]
    others = [column for column in (rows[0] if rows else ()) if column and column not in first]
    numbers = list(dict.fromkeys(["lr", *(f"{arm}_loss" for arm in arms), *others]))
    for number, row in enumerate(rows, 1):
        text = fault_of_cells(row, first, numbers)
        if not text and row["step"] != str(number):
            text = f"expected step {number}, found {row['step']}"
        if text:
            yield f"{path}: row {number}: {text}"
            return


def faults_of_epochs(path: Path, arms: Sequence[str]) -> Iterator[str]:
    """Yield the first row that is not the expected epoch and arm with finite numbers."""
    try:
        rows = read_rows(path)
    except (ValueError, csv.Error) as error:
        yield str(error)
        return
    schema = SCHEMAS["epochs.csv"]
    for number, row in enumerate(rows):
        epoch, arm = str(number // len(arms) + 1), arms[number % len(arms)]
        text = fault_of_cells(row, schema.key, [column for column in schema.columns if column in schema.values])
        if not text and (row["epoch"], row["arm"]) != (epoch, arm):
            text = f"expected epoch {epoch} of '{arm}', found {row['epoch']} of '{row['arm']}'"
        if text:
            yield f"{path}: row {number + 1}: {text}"
            return


def fault_of_cells(row: Mapping[str, str], columns: Sequence[str], numbers: Sequence[str]) -> str:
    """Return what is wrong with the cells of a row; "" if it has all `columns`, finite `numbers` and no other cells."""
    if None in row or any(not row.get(column) for column in (*columns, *numbers)):
        return f"expected the columns of the header, found '{','.join(map(str, row.values()))}'"
    return next(
        (
            f"{column}: expected a finite number, found '{row[column]}'"
            for column in numbers
            if not _is_finite(row[column])
        ),
        "",
    )


def _is_finite(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def faults_of_saves(run: Path, settings_sha256: str, lines: Sequence[LogState]) -> Iterator[str]:
    """Check each checkpoint, and that the newest one belongs to the last line of the log of digests.

    A save writes its line before its checkpoint, so an interrupted save leaves a line and a temporary folder.
    """
    folder = run / "checkpoints"
    states = checkpoints.list_checkpoints(folder)
    for state in states:
        yield from checkpoints.check_checkpoint(state, settings_sha256)
    expected = f"step_{lines[-1].step:08d}" if lines else ""
    newest = states[-1].name if states else ""
    if newest != expected and not (folder / f".{expected}.tmp").is_dir():
        text = f"expected '{expected}' as the newest checkpoint, found '{newest}'"
        yield f"{folder}: {text} (see {log_digests.FILE})"
