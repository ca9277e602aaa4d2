"""A fault at every file call of a whole tiny run, one at a time: the process is killed, or the disk is full.

PYTHONPATH=. python tests/support/fault_injection.py [--only REGEX] [--every N]

The run is made by three commands: one that begins a run and stops, one that replaces it and stops, one that goes on to
the end. Every open for writing, write, fsync, rename, mkdir, unlink, rmdir and truncation inside the run folder is a
point. A killed write has written half of its bytes; a full disk takes half of them. After each fault the run is resumed
and must end with the bytes of an undisturbed one; what was said of a full disk must be one line with path and reason.

All points share one process that has imported torch; each is a fork of it. Prints the number of points and every one
that did not end well; the exit status is then 1.
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

# what train.main imports late, here once for all points
import coupled.coordinator
import coupled.datasets.digits
import coupled.objectives.dcl
import coupled.storage.atomic_files
from coupled import train
from support import tiny

YAML = tiny.TINY_YAML.replace("epochs: 1", "epochs: 2") + "batch: {size: 512}\narms: {cl: dcl}\nnum_threads: 1\n"
FIRST, OTHER = ["seed=5"], ["seed=3"]
COMMANDS = (  # begin, replace, go on
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
    """Wraps the calls of `os` and before writes. `told` is called with each call within the run folder: its name, the
    path, what does half of it, and what the call was given, which an error of the system names if it is a path.
    """

    def __init__(self, told: Callable[[str, str, Callable[[], Any], object], None]) -> None:
        self.told, self.run = told, RUN.absolute()

    def install(self) -> None:
        """For the rest of the process."""
        for call in CALLS:
            if call != "write":
                setattr(os, call, self._patched(call, getattr(os, call)))
        coupled.storage.atomic_files.open = self._open  # type: ignore[attr-defined] # writes of unbuffered files are made in C

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
        """A path, or that of a handle, relative to the run folder; None if it is elsewhere."""
        if isinstance(path, int):
            path = handle_path(path)
        base = handle_path(folder) if folder is not None else Path.cwd()
        whole = Path(os.path.normpath(os.path.join(base, path)))  # noqa: PTH118 - an absolute path stays one
        return str(whole.relative_to(self.run)) if whole.is_relative_to(self.run) else None

    def _open(self, path: Path, mode: str, **more: Any) -> Any:
        return File(builtins.open(path, mode, **more), self, self.inside(path))  # noqa: PTH123


def handle_path(handle: int) -> Path:
    """The path of an open file or folder."""
    return Path(f"/proc/self/fd/{handle}").readlink()


class File:
    """An unbuffered file whose writes the shim sees."""

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
    """The exit status of `do` in a fork of this process, negative for a signal, and what it wrote to stderr."""
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
    """train.py with these arguments; a traceback is printed and gives status 1."""

    def do() -> int:
        try:
            return train.main(["--config", "tiny.yaml", "--run-dir", str(RUN), *arguments])
        except BaseException:
            sys.excepthook(*sys.exc_info())
            return 1

    return do


def points_of(number: int) -> list[Point]:
    """The calls of one of the COMMANDS, which is run here, in the order made."""
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
        assert not missed, f"opened for writing past the shim: {missed}"
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
    """The command of `point`, with the fault."""
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
    """What was wrong after the fault; "" if nothing was, "harmless" if the command did not need the call."""
    shutil.rmtree(RUN, ignore_errors=True)
    before = Path(f"before.{point.command}")
    if before.exists():
        shutil.copytree(before, RUN)
    status, said = forked(harmed(point, how), Path("said"))
    if how == "kill" and status != -signal.SIGKILL:
        return f"was not killed: status {status}: {said}"
    if how == "full" and status not in (0, 1):
        return f"status {status}: {said}"
    if how == "full" and status == 1 and not re.fullmatch(r"coupled train: .*\brun\b.*\n", said):
        return f"no one line with the path: {said}"
    if how == "full" and status == 1 and "No space left on device" not in said:
        return f"not the reason: {said}"
    settings = FIRST if point.command == 0 else OTHER
    again, said = forked(command([*settings, "--resume"]), Path("said"))
    if again == 2 and point.command == 1 and "was started with other settings" in said:  # it is not yet replaced
        again, said = forked(command([*settings, "--overwrite"]), Path("said"))
    if again != 0:
        return f"cannot be resumed: {said}"
    return differences(RUN, Path(f"whole.{settings[0]}")) or ("harmless" if status == 0 else "")


def differences(run: Path, whole: Path) -> str:
    """In what two ended runs differ."""
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
    """The three commands, the folder before each kept, and whole runs to compare with; all points of the commands."""
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
    """Every `every`-th of the points whose text, such as "kill 1 rename run.json.tmp 1", has the pattern `only`."""
    both = [(point, how) for point in points for how in ("kill", "full")]
    named = [(point, how) for point, how in both if re.search(only, " ".join(map(str, (how, *point))))]
    yield from named[::every]


def main() -> int:
    """The program; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="a regular expression for the points, such as 'kill 2 rename'")
    parser.add_argument("--every", type=int, default=1, help="take every N-th point")
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
    harmless = f"{ended['harmless']} did not and were harmless"
    print(f"{ended.total()} faults: {ended['']} stopped the run, {harmless}; {ended['wrong']} ended badly")
    return int(ended["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
