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
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from coupled.checked import differences
from coupled.durable import append, space_named, write_durably
from coupled.run_lock import NAME as LOCK

MIB = 2**20
CHANGES_BITS = ("versions", "world_size", "device", "threads")
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "safetensors", "coupled")


def describe_code() -> dict[str, Any]:
    """Git commit of this code ("+changes" when the tree differs from it; null outside git) and versions of the
    libraries (null where none is installed under that name, as of this code in a checkout on PYTHONPATH).
    """
    here = Path(__file__).parent
    commit = None
    if (here.parent / ".git").exists() and shutil.which("git"):
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True)
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True)
        if head.returncode == 0:
            commit = head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
    return {
        "git_commit": commit,
        "versions": {"python": sys.version.split()[0], **{name: _version(name) for name in LIBRARIES}},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


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


def name_of(run: Path) -> str | None:
    """The name of the run in the folder `run`, if one is there."""
    if not (run / "run.json").is_file():
        return None
    settings = read_run_json(run).get("settings")
    return settings.get("name") if isinstance(settings, dict) else None


class CsvLog:
    """A CSV that grows row by row; floats are written so that reading them back gives the same number."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        if not path.exists():
            write_durably(path, self._line(self.columns).encode())
        self.file = path.open("ab", buffering=0)

    def row(self, values: Sequence[Any]) -> None:
        """Append one row; whole when the call returns, durable after `sync`. Raises OSError: bytes needed and free."""
        assert len(values) == len(self.columns), (values, self.columns)
        data = self._line(values).encode()
        with space_named(self.path, len(data)):
            append(self.file, data)

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
    """Drop the rows of a CSV whose `column` exceeds `last`, and a half-written last row.

    Raises ValueError that names the file if it is not such a CSV, or if its rows do not lead up to `last`.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    try:
        rows = [(int(line.split(b",")[_place(whole, column)]), line) for line in whole[1:]]
    except (ValueError, IndexError):
        raise ValueError(f"{path}: not a table with whole numbers in a column '{column}'; restore it") from None
    kept = [(number, line) for number, line in rows if number <= last]
    if list(dict.fromkeys(number for number, _ in kept)) != list(range(1, last + 1)):
        raise ValueError(f"{path}: its rows should lead up to {column} {last}, where the run continues; restore them")
    if lines:
        write_durably(path, b"".join([*whole[:1], *(line for _, line in kept)]))


def _place(lines: Sequence[bytes], column: str) -> int:
    return lines[0].decode().strip().split(",").index(column)


class RunLog:
    """steps.csv and epochs.csv of a run, continued after `epoch` and `step`: later rows are cut."""

    def __init__(
        self, run: Path, digests: Sequence[str], arms: Sequence[str], per_arm: Sequence[str], epoch: int, step: int
    ) -> None:
        cut_rows(run / "steps.csv", "step", step)
        cut_rows(run / "epochs.csv", "epoch", epoch)
        each = [f"{arm}_{column}" for arm in arms for column in per_arm]
        self.steps = CsvLog(run / "steps.csv", ["epoch", "step", *digests, "lr", *each])
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


def is_run_of(run: Path, name: str, agents: Collection[str]) -> bool:
    """Whether the run in the folder `run`, if any, was started by one of the `agents` in the launch `name`."""
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
    if not run.exists() or (run.is_dir() and all(path.name == LOCK for path in run.iterdir())):
        return
    if not (run / "run.json").is_file():
        raise ValueError(f"--run: '{run}' exists and is no run folder (it has no run.json); choose another --run")
    if resume:
        there = read_run_json(run).get("settings", {})
        changes = [
            f"{key} was {was}, is {now}" for key, was, now in differences(there, settings) if key not in may_change
        ]
        if changes:
            raise ValueError(f"--resume: '{run}' was started with other settings: {'; '.join(changes)}")
    elif not overwrite:
        raise ValueError(
            f"--run: a run is already in '{run}'; pass --resume to continue it or --overwrite to replace it"
        )


def space(run: Path, needed: int, overwrite: bool, check: bool) -> str:
    """One line about the bytes `needed` and those free where the folder `run` is or will be.

    Raises ValueError if they do not fit and `check` is set. Of a run to be overwritten the bytes count as free.
    """
    there = next(path for path in (run.absolute(), *run.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if overwrite and run.is_dir():
        free += sum(path.lstat().st_size for path in run.rglob("*") if path.is_file())
    text = f"snapshots and resume states need {needed / MIB:,.0f} MiB of {free / MIB:,.0f} MiB free on the disk"
    if check and needed > free:
        raise ValueError(
            f"snapshots: {needed / MIB:,.0f} MiB needed, {free / MIB:,.0f} MiB free at '{run}'; thin them with"
            " snapshots.every and snapshots.dense_until, free space, or set snapshots.check_free_space=false"
        )
    return text


def prepare_folder(run: Path, content: Mapping[str, Any], resume: bool) -> list[str]:
    """Make ready the folder that `check_folder` allowed, with `content` as run.json.

    A resumed run keeps its own, with the settings that were changed; what else has changed so that the last bits may
    differ from here on is returned, a line each. Raises ValueError if the run saw other images.
    """
    if resume and (run / "run.json").is_file():
        there = read_run_json(run)
        if there.get("image_set") != content.get("image_set"):
            found = f"was {there.get('image_set')}, is {content.get('image_set')}"
            raise ValueError(f"image_set: the images are not those that '{run}' was started with: {found}")
        if there.get("settings") != content["settings"]:
            write_run_json(run, {**there, "settings": content["settings"]})
        changed = (each for key in CHANGES_BITS for each in differences(there.get(key), content.get(key), key))
        return [f"{key} was {was}, is {now}: the last bits may differ from here on" for key, was, now in changed]
    run.mkdir(parents=True, exist_ok=True)
    # run.json goes last: a folder that was half deleted by a killed process is still known as a run
    for path in sorted(run.iterdir(), key=lambda path: path.name == "run.json"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
    write_run_json(run, content)
    return []
