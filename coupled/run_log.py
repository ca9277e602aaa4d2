"""What a run writes down of itself: run.json, steps.csv and epochs.csv. Only rank 0 writes.

steps.csv holds no timings, so two equal runs give equal bytes.
"""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from coupled.snapshots import write_durably

MIB = 2**20
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "safetensors", "coupled")


def describe_code() -> dict[str, Any]:
    """Git commit of this code ("+changes" when the tree differs from it; null outside git) and versions of the
    libraries.
    """
    here = Path(__file__).parent
    commit = None
    if (here.parent / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True)
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True)
        if head.returncode == 0:
            commit = head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
    return {
        "git_commit": commit,
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in LIBRARIES}},
    }


def write_run_json(run: Path, content: Mapping[str, Any]) -> None:
    """Write run/run.json durably."""
    write_durably(run / "run.json", (json.dumps(content, indent=2) + "\n").encode())


def read_run_json(run: Path) -> dict[str, Any]:
    """The content of run/run.json. Raises ValueError naming the file if it is no JSON object."""
    path = run / "run.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as a run's description: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


class CsvLog:
    """A CSV that grows row by row; floats are written so that reading them back gives the same number."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        if not path.exists():
            write_durably(path, self._line(self.columns).encode())
        self.file = path.open("a", encoding="utf-8", newline="")

    def row(self, values: Sequence[Any]) -> None:
        """Append one row; whole when the call returns, durable after `sync`."""
        assert len(values) == len(self.columns), (values, self.columns)
        self.file.write(self._line(values))
        self.file.flush()

    def sync(self) -> None:
        """Force the rows to the disk."""
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


def cut_rows(path: Path, column: str, last: int) -> None:
    """Drop the rows of a CSV whose `column` exceeds `last`, and a half-written last row."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    place = lines[0].strip().split(",").index(column)
    kept = [line for line in lines[1:] if line.endswith("\n") and int(line.split(",")[place]) <= last]
    write_durably(path, "".join([lines[0], *kept]).encode())


class RunLog:
    """steps.csv and epochs.csv of a run, continued after `epoch` and `step`: later rows are cut."""

    def __init__(self, run: Path, arms: Sequence[str], per_arm: Sequence[str], epoch: int, step: int) -> None:
        cut_rows(run / "steps.csv", "step", step)
        cut_rows(run / "epochs.csv", "epoch", epoch)
        each = [f"{arm}_{column}" for arm in arms for column in per_arm]
        self.steps = CsvLog(run / "steps.csv", ["epoch", "step", "inputs_digest", "lr", *each])
        columns = ["epoch", "arm", "loss", "lr", "seconds", "images_per_second"]
        self.epochs = CsvLog(run / "epochs.csv", columns)

    def sync(self) -> None:
        """Force the rows to the disk."""
        self.steps.sync()
        self.epochs.sync()

    def close(self) -> None:
        """Sync and close both files."""
        self.steps.close()
        self.epochs.close()


def is_run_of(run: Path, job: str) -> bool:
    """Whether the run in the folder `run`, if any, was started by the launcher's job `job`."""
    return (run / "run.json").is_file() and read_run_json(run).get("job") == job


def check_folder(run: Path, settings: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
    """Raise ValueError unless a run with the resolved `settings` may start or continue in the folder `run`."""
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    if not (run / "run.json").is_file():
        raise ValueError(f"--run: '{run}' exists and is no run folder (it has no run.json); choose another --run")
    if resume:
        there = read_run_json(run).get("settings", {})
        changes = list(_differences(there, settings))
        if changes:
            raise ValueError(f"--resume: '{run}' was started with other settings: {'; '.join(changes)}")
    elif not overwrite:
        raise ValueError(
            f"--run: a run is already in '{run}'; pass --resume to continue it or --overwrite to replace it"
        )


def snapshot_space(needed: int, run: Path) -> str:
    """A line on the bytes that the snapshots need.

    Raises ValueError if the disk of the folder `run`, which need not exist yet, has less. What a run to be overwritten
    holds is not counted as free: it is deleted only after this check.
    """
    folder = run.resolve()
    free = shutil.disk_usage(next(f for f in (folder, *folder.parents) if f.exists())).free
    if needed > free:
        raise ValueError(
            f"snapshots: {needed / MIB:,.0f} MiB needed, {free / MIB:,.0f} MiB free at '{run}';"
            " thin them with snapshots.every and snapshots.dense_until, or free space"
        )
    return f"snapshots need {needed / MIB:,.0f} MiB of {free / MIB:,.0f} MiB free on the disk"


def prepare_folder(run: Path, content: Mapping[str, Any], resume: bool) -> None:
    """Make ready the folder that `check_folder` allowed, with `content` as run.json; a resumed run keeps its own."""
    if resume and (run / "run.json").is_file():
        return
    if run.exists():
        shutil.rmtree(run)
    run.mkdir(parents=True)
    write_run_json(run, content)


def _differences(there: Any, here: Any, key: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in [*there, *(name for name in here if name not in there)]:
            yield from _differences(there.get(name), here.get(name), f"{key}.{name}" if key else name)
    elif there != here:
        yield f"{key} was {there}, is {here}"
