"""A fault at every file call of a whole tiny run, one at a time: the process is killed, or the disk is full.

PYTHONPATH=$PWD:tests python tests/support/fault_injection.py [--only REGEX] [--every N]

Three commands make the run: one starts a run and stops, one replaces it and stops, one resumes it to its end. Every
open for writing, write, fsync, rename, mkdir, unlink, rmdir and truncation inside the run folder is a point. A killed
or failed write has written half of its bytes. After each fault the run is resumed and must end with the bytes of an
undisturbed run. The message about a full disk must be one line with path and reason.

Each point is a fork of one process that has imported torch. The program prints the number of points and every failed
point. Its exit status is 1 if a point failed.
"""

import argparse
import builtins
import errno
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas

# imported here once for all points; train.main imports these late
import coupled.coordinator
import coupled.datasets.digits
import coupled.objectives.dcl
import coupled.storage.atomic_files
from coupled import train
from support import tiny

YAML = tiny.TINY_YAML.replace("epochs: 1", "epochs: 2") + "batch: {size: 512}\narms: {cl: dcl}\nnum_threads: 1\n"
FIRST, OTHER = ["seed=5"], ["seed=3"]
COMMANDS = (  # start, replace, resume
    [*FIRST, "--max-steps", "1"],
    [*OTHER, "--overwrite", "--max-steps", "3"],
    [*OTHER, "--resume"],
)
CALLS = ("open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "ftruncate", "pwrite")
RUN, WRITES = Path("run"), os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Point(NamedTuple):
    """The `number`-th call of a kind on a path, relative to the run folder, within one command."""

    command: int
    call: str
    path: str
    number: int


class Shim:
    """Wrap the file calls of `os` and unbuffered writes. `told` is called before each call within the run folder.

    Its arguments: name of the call, path, a function that does half of the call, and the first argument of the call.
    """

    def __init__(self, told: Callable[[str, str, Callable[[], Any], object], None]) -> None:
        self.told, self.run = told, RUN.absolute()

    def install(self) -> None:
        """Replace the calls for the rest of the process."""
        for call in CALLS:
            if call != "write":
                setattr(os, call, self._patched(call, getattr(os, call)))
        coupled.storage.atomic_files.open = self._open  # type: ignore[attr-defined] # unbuffered files write in C code

    def _patched(self, call: str, usual: Callable[..., Any]) -> Callable[..., Any]:
        def patched(first: Any, *rest: Any, **more: Any) -> Any:
            reads = call == "open" and not rest[0] & WRITES
            path = self.inside(first, more.get("dir_fd"))
            half = (lambda: usual(first, rest[0][: len(rest[0]) // 2], *rest[1:])) if call == "pwrite" else None
            if path is not None and not reads:
                self.told(call, path, half or (lambda: None), first)
            return usual(first, *rest, **more)

        return patched

    def inside(self, path: Any, folder: int | None = None) -> str | None:
        """Return a path, or the path of a handle, relative to the run folder; None for other paths."""
        if isinstance(path, int):
            path = handle_path(path)
        base = handle_path(folder) if folder is not None else Path.cwd()
        whole = Path(os.path.normpath(os.path.join(base, path)))  # noqa: PTH118 - an absolute path stays one
        return str(whole.relative_to(self.run)) if whole.is_relative_to(self.run) else None

    def _open(self, path: Path, mode: str, **more: Any) -> Any:
        return File(builtins.open(path, mode, **more), self, self.inside(path))  # noqa: PTH123


def handle_path(handle: int) -> Path:
    """Return the path of an open file or folder."""
    return Path(f"/proc/self/fd/{handle}").readlink()


class File:
    """An unbuffered file that reports its writes to the shim."""

    def __init__(self, file: Any, shim: Shim, path: str | None) -> None:
        self.file, self.shim, self.path = file, shim, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> int:
        if self.path is not None:
            self.shim.told("write", self.path, lambda: self.file.write(data[: len(data) // 2]), None)
        return int(self.file.write(data))


def forked(do: Callable[[], int], said: Path) -> tuple[int, str]:
    """Run `do` in a fork of this process; return its exit status (negative for a signal) and its stderr."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            with said.open("wb") as file, Path(os.devnull).open("wb") as nothing:
                os.dup2(file.fileno(), 2)
                os.dup2(nothing.fileno(), 1)
            status = do()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(ended), said.read_text(encoding="utf-8", errors="replace")


def command(arguments: list[str]) -> Callable[[], int]:
    """Return a function that runs train.py with these arguments; it prints a traceback and returns 1 on errors."""

    def do() -> int:
        try:
            return train.main(["--config", "tiny.yaml", "--run-dir", str(RUN), *arguments])
        except BaseException:
            sys.excepthook(*sys.exc_info())
            return 1

    return do


def points_of(number: int) -> list[Point]:
    """Run one of the COMMANDS and return its file calls in order."""
    log = Path(f"calls.{number}")

    def do() -> int:
        found: list[tuple[str, str]] = []
        shim = Shim(lambda call, path, half, name: found.append((call, path)))
        shim.install()
        opened: list[str] = []

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and not isinstance(arguments[0], int) and arguments[2] & WRITES:
                opened.append(str(arguments[0]))

        sys.addaudithook(audit)
        status = command(COMMANDS[number])()
        missed = {shim.inside(path) for path in opened} - {path for call, path in found if call == "open"} - {None}
        assert not missed, f"files opened for writing that the shim did not see: {missed}"
        log.write_text("".join(f"{call} {path}\n" for call, path in found))
        return status

    status, said = forked(do, Path("said"))
    assert status == 0, said
    seen: Counter[str] = Counter()
    points = []
    for line in log.read_text().splitlines():
        seen[line] += 1
        points.append(Point(number, *line.split(" ", 1), seen[line]))
    return points


def harmed(point: Point, how: str) -> Callable[[], int]:
    """Return a function that runs the command of `point` with the fault."""
    seen: Counter[tuple[str, str]] = Counter()

    def told(call: str, path: str, half: Callable[[], Any], name: object) -> None:
        seen[call, path] += 1
        if (call, path, seen[call, path]) == (point.call, point.path, point.number):
            half()
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([name] if isinstance(name, str | Path) else []))

    def do() -> int:
        Shim(told).install()
        return command(COMMANDS[point.command])()

    return do


def outcome(point: Point, how: str) -> str:
    """Return the problem after the fault; "" if there is none, "harmless" if the command ended with status 0."""
    shutil.rmtree(RUN, ignore_errors=True)
    before = Path(f"before.{point.command}")
    if before.exists():
        shutil.copytree(before, RUN)
    status, said = forked(harmed(point, how), Path("said"))
    if how == "kill" and status != -signal.SIGKILL:
        return f"the process was not killed: status {status}: {said}"
    if how == "full" and status not in (0, 1):
        return f"status {status}: {said}"
    if how == "full" and status == 1 and not re.fullmatch(r"coupled train: .*\brun\b.*\n", said):
        return f"the message is not one line with the path: {said}"
    if how == "full" and status == 1 and "No space left on device" not in said:
        return f"the message has no reason: {said}"
    settings = FIRST if point.command == 0 else OTHER
    again, said = forked(command([*settings, "--resume"]), Path("said"))
    if again == 2 and point.command == 1 and "was started with other settings" in said:  # the old run is still there
        again, said = forked(command([*settings, "--overwrite"]), Path("said"))
    if again != 0:
        return f"cannot be resumed: {said}"
    return differences(RUN, Path(f"whole.{settings[0]}")) or ("harmless" if status == 0 else "")


def differences(run: Path, whole: Path) -> str:
    """Return a difference of two finished runs; "" if there is none."""
    if tiny.snapshot_bytes(run) != tiny.snapshot_bytes(whole):
        return "other snapshots"
    for file in ("steps.csv", "snapshots/manifest.jsonl"):
        if (run / file).read_bytes() != (whole / file).read_bytes():
            return f"another {file}"
    columns = ["epoch", "arm", "loss", "lr"]
    if not pandas.read_csv(run / "epochs.csv")[columns].equals(pandas.read_csv(whole / "epochs.csv")[columns]):
        return "another epochs.csv"
    here, there = (
        {
            str(path.relative_to(each))
            for path in each.rglob("*")
            if not re.search(r"checkpoints/step_[0-9]{8}\b", str(path))
        }
        for each in (run, whole)
    )
    return f"other files: {sorted(here ^ there)}" if here != there else ""


def undisturbed() -> list[Point]:
    """Run the commands, keep a copy of the folder before each, make reference runs, and return all points."""
    for settings in (FIRST, OTHER):
        status, said = forked(command(settings), Path("said"))
        assert status == 0, said
        RUN.rename(f"whole.{settings[0]}")
    points = []
    for number in range(len(COMMANDS)):
        if RUN.exists():
            shutil.copytree(RUN, f"before.{number}")
        points += points_of(number)
    assert not differences(RUN, Path(f"whole.{OTHER[0]}"))
    return points


def chosen(points: list[Point], only: str, every: int) -> Iterator[tuple[Point, str]]:
    """Yield every `every`-th point whose text, such as "kill 1 rename run.json.tmp 1", matches `only`."""
    both = [(point, how) for point in points for how in ("kill", "full")]
    named = [(point, how) for point, how in both if re.search(only, " ".join(map(str, (how, *point))))]
    yield from named[::every]


def main() -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only",
        default="",
        help="regular expression of the points to test, for example 'kill 2 rename' (default: all)",
    )
    parser.add_argument("--every", type=int, default=1, help="test every N-th point (default: 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("tiny.yaml").write_text(YAML)
        points = undisturbed()
        print(f"{len(points)} file calls:", *(f"{n} {call}" for call, n in Counter(p.call for p in points).items()))
        ended: Counter[str] = Counter()
        for point, how in chosen(points, options.only, options.every):
            text = outcome(point, how)
            ended[text if text in ("", "harmless") else "wrong"] += 1
            if text:
                print(how, *point, f": {text}", flush=True)
        os.chdir("/")
    harmless = f"{ended['harmless']} did not stop it and were harmless"
    print(f"{ended.total()} faults: {ended['']} stopped the run, {harmless}; {ended['wrong']} failed")
    return int(ended["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
