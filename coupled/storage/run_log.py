"""steps.csv and epochs.csv of a run, and the checks of its folder. Only rank 0 writes.

steps.csv has no timings, so two equal runs give equal bytes.
"""

import csv
import io
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from coupled.config.errors import differences, first_differences
from coupled.storage import log_digests
from coupled.storage.atomic_files import append, encoded, errors_with_path, open_no_follow, write_durably
from coupled.storage.log_digests import LogState
from coupled.storage.run_description import is_as_written, read_run_json, write_run_json
from coupled.storage.run_lock import NAME as LOCK
from coupled.storage.run_lock import check_in_place, has_no_run

MIB = 2**20
MAY_CHANGE_BITS = ("versions", "world_size", "device", "threads")


def digest_column(stream: str) -> str:
    """Return the column of steps.csv with the digests of the inputs of a stream."""
    return f"{stream}_inputs_digest" if stream else "inputs_digest"


class CsvLog:
    """A CSV file that grows row by row; reading a float back gives the same number.

    The digests of the first `digested` bytes are written. Raises ValueError for a file with another number of columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], digested: int = 0) -> None:
        self.path, self.columns = path, tuple(columns)
        if not path.exists():
            write_durably(path, encoded(self._line(self.columns)))
        with errors_with_path(path):
            data = path.read_bytes()
        if (found := data.partition(b"\n")[0].count(b",") + 1) != len(self.columns):
            needed = f"this version writes {len(self.columns)}; continue with the version that started the run"
            raise ValueError(f"{path}: has {found} columns, and {needed}")
        with errors_with_path(path):
            self.file = open_no_follow(path, "ab")
        self.size, self.new = len(data), log_digests.digest(data[digested:])

    def row(self, values: Sequence[Any]) -> None:
        """Append one row; it is complete when the call returns and durable after `sync`.

        Raises OSError with bytes needed and free, and MovedError if the file is no longer at its path.
        """
        check_in_place(self.file.fileno(), self.path)
        assert len(values) == len(self.columns), (values, self.columns)
        data = encoded(self._line(values))
        with errors_with_path(self.path, len(data)):
            append(self.file, data)
        self.size += len(data)
        self.new.update(data)

    def state(self) -> tuple[int, str]:
        """Return the size in bytes, and the digest of the bytes written since the last call."""
        found, self.new = (self.size, self.new.hexdigest()), log_digests.digest()
        return found

    def sync(self) -> None:
        """Sync the rows to the disk. Raise OSError with the path."""
        with errors_with_path(self.path):
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self.file.close()

    @staticmethod
    def _line(values: Sequence[Any]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([repr(v) if isinstance(v, float) else v for v in values])
        return text.getvalue()


def drop_rows_after(path: Path, column: str, last: int) -> None:
    """Remove the rows of a CSV file whose `column` exceeds `last`, and a half-written last row.

    Raises ValueError that names the file if the column is not integers, or if it lacks one of 1 to `last`.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    try:
        rows = [(int(line.split(b",")[_place(whole, column)]), line) for line in whole[1:]]
    except (ValueError, IndexError):
        raise ValueError(f"{path}: column '{column}' is missing or is not all integers; restore the file") from None
    kept = [(number, line) for number, line in rows if number <= last]
    if list(dict.fromkeys(number for number, _ in kept)) != list(range(1, last + 1)):
        raise ValueError(f"{path}: rows are missing: expected all up to {column} {last}; restore the file")
    if lines:
        write_durably(path, b"".join([*whole[:1], *(line for _, line in kept)]))


def _place(lines: Sequence[bytes], column: str) -> int:
    return lines[0].decode().strip().split(",").index(column)


class RunLog:
    """steps.csv and epochs.csv of a run, continued after `epoch` and `step`: later rows are removed.

    steps.csv has the shared learning rate, and that of each of the `own_rates`, the arms with their own optimizer.
    `warnings` has a line for each table whose earlier rows differ from what was written.
    """

    def __init__(
        self,
        run: Path,
        settings_sha256: str,
        digests: Sequence[str],
        arms: Sequence[str],
        per_arm: Sequence[str],
        own_rates: Sequence[str],
        epoch: int,
        step: int,
    ) -> None:
        self.settings_sha256 = settings_sha256
        drop_rows_after(run / "steps.csv", "step", step)
        drop_rows_after(run / "epochs.csv", "epoch", epoch)
        last = log_digests.cut(run, settings_sha256, step)
        self.warnings = list(log_digests.changed(run, log_digests.read(run, settings_sha256), len(arms)))
        self.own_rates = tuple(own_rates)
        each = [f"{arm}_{column}" for arm in arms for column in per_arm]
        columns = ["epoch", "step", *digests, "lr", *(f"{arm}_lr" for arm in own_rates), *each]
        self.steps = CsvLog(run / "steps.csv", columns, last.steps_bytes if last else 0)
        columns = ["epoch", "arm", "loss", "lr", "seconds", "images_per_second"]
        self.epochs = CsvLog(run / "epochs.csv", columns, last.epochs_bytes if last else 0)

    def state(self, epoch: int, step: int) -> LogState:
        """Return the line of log_digests.jsonl for the rows written up to `epoch` and `step`."""
        return LogState(self.settings_sha256, epoch, step, *self.steps.state(), *self.epochs.state())

    def sync(self) -> None:
        """Sync the rows of both files to the disk."""
        self.steps.sync()
        self.epochs.sync()

    def close(self) -> None:
        """Sync and close both files."""
        self.steps.close()
        self.epochs.close()


def was_started_by(run: Path, name: str, agents: Collection[str]) -> bool:
    """Return whether the run in the folder `run` was started by one of the `agents` in the launch `name`."""
    if not (run / "run.json").is_file():
        return False
    launch = read_run_json(run).get("launch", {})
    return launch.get("name") == name and not set(agents).isdisjoint(launch.get("agents", ()))


def check_folder(
    run: Path, settings: Mapping[str, Any], resume: bool, overwrite: bool, may_change: Collection[str] = ()
) -> None:
    """Raise ValueError unless a run with the resolved `settings` may start or continue in the folder `run`.

    A run continues with its own settings, except for the keys `may_change`.
    """
    if has_no_run(run):
        return
    if not (run / "run.json").is_file():
        raise ValueError(
            f"--run-dir: '{run}' exists and is not a run folder (it has no run.json); choose another --run-dir"
        )
    if resume:
        description = read_run_json(run)
        if "imported" in description:
            raise ValueError(f"--resume: '{run}' was imported, so it has no checkpoint and cannot be resumed")
        there = description.get("settings", {})
        if changes := first_differences(there, settings, may_change):
            raise ValueError(
                f"--resume: '{run}' was started with other settings: {changes}; use those in run.json, another"
                " --run-dir, or --overwrite in place of --resume (deletes that run)"
            )
        _check_own_folders(run)
    elif not overwrite:
        raise ValueError(
            f"--run-dir: a run is already in '{run}'; pass --resume to continue it or --overwrite to replace it"
        )


def _check_own_folders(run: Path) -> None:
    """Raise ValueError for a link to a folder, through which files outside the run would be written or deleted."""
    folders = [run / name for name in ("snapshots", "checkpoints", "replay", "trackers", "tensorboard", "wandb")]
    for path in (*folders, *(inner for folder in folders[:2] for inner in folder.glob("*"))):
        if path.is_symlink() and path.is_dir():
            raise ValueError(
                f"--resume: '{path}' is a symbolic link to a folder; replace the link by the folder itself, because a"
                f" run writes only inside its run folder; '{run}' itself may be a link"
            )


def space(run: Path, needed: int, overwrite: bool, check: bool) -> str:
    """Return a line on the bytes `needed` and free on the disk of the folder `run`.

    The bytes of a run that will be overwritten count as free. With `check`, raises ValueError if too few are free.
    """
    there = next(path for path in (run.absolute(), *run.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if overwrite and run.is_dir():
        free += sum(path.lstat().st_size for path in run.rglob("*") if path.is_file())
    text = f"snapshots and checkpoints need {needed / MIB:,.0f} MiB of {free / MIB:,.0f} MiB free on the disk"
    if check and needed > free:
        raise ValueError(
            f"snapshots: {needed / MIB:,.0f} MiB needed, {free / MIB:,.0f} MiB free at '{run}'; free space, keep fewer"
            " snapshots (snapshots.every_epochs, snapshots.dense_until_epoch), or set snapshots.check_free_space=false"
        )
    return text


def prepare_folder(run: Path, content: Mapping[str, Any], resume: bool) -> list[str]:
    """Prepare the folder that `check_folder` allowed, with `content` as run.json; return warnings, one line each.

    A resumed run keeps its run.json, except for settings that may change. The warnings name changes, such as library
    versions, after which the last bits of results may differ.
    """
    if resume and (run / "run.json").is_file():
        there = read_run_json(run)
        changed = (each for key in MAY_CHANGE_BITS for each in differences(there.get(key), content.get(key), key))
        warnings = [
            f"{key} was {was}, is {now}: from here on, results may differ in the last bits" for key, was, now in changed
        ]
        if not is_as_written(there):  # a new digest would hide the damage
            return [*warnings, f"{run / 'run.json'}: damaged: it does not match its digest; the file is not changed"]
        if there.get("settings") != content["settings"]:
            write_run_json(run, {**there, "settings": content["settings"]})
        return warnings
    run.mkdir(parents=True, exist_ok=True)
    # run.json is deleted last, so that a folder that a killed process has partly deleted is still recognised as a run.
    # Checkpoints are deleted before the snapshots, so that no run is resumed without its snapshots. `--resume` may
    # refuse such a folder; `--overwrite` does not.
    order = {"checkpoints": 0, "run.json": 2}
    for path in sorted(run.iterdir(), key=lambda path: order.get(path.name, 1)):
        with errors_with_path(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
    write_run_json(run, content)
    return []
