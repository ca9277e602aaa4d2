"""What the benchmarks share: rows that are printed as they are measured, within a budget of seconds.

A benchmark is a file with a function `cases(options) -> list[Case]` and ends with `run(cases)`. As a program it takes
`--seconds`, `--device`, `--data`, `--tiny` and `--json`.
"""

import argparse
import contextlib
import json
import math
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from coupled.monitoring.terminal import safe_streams

Row = dict[str, Any]  # name, ours, baseline, ratio, goal, unit, ours_peak_mib, baseline_peak_mib, note
NAN = math.nan


@dataclass(frozen=True)
class Options:
    """What the command line says; `tiny` is for tests, and starts no process."""

    seconds: float = 120.0
    device: str = "cpu"
    data: Path | None = None
    tiny: bool = False
    pages: tuple[Path, ...] = ()

    @property
    def gpu(self) -> bool:
        """Whether the rows are measured on a GPU."""
        return self.device == "cuda"


class Case(NamedTuple):
    """One row, or several, and what measures them; `lacks` says what is missing to measure it here."""

    name: str
    measure: Callable[[], Row | list[Row]]
    lacks: str = ""


class OutOfTimeError(Exception):
    """A case took longer than its share of the budget."""


def row(
    name: str, ours: float, baseline: float, goal: float | str = "-", unit: str = "s", ours_mib: float = NAN,
    baseline_mib: float = NAN, note: str = "",
) -> Row:  # fmt: skip
    """Return a row. The ratio says how many times better ours is: less of a cost, or more of a rate."""
    ratio = ours / baseline if unit.endswith("/s") else baseline / ours if ours else NAN
    memory = {"ours_peak_mib": ours_mib, "baseline_peak_mib": baseline_mib}
    return {
        "name": name, "ours": ours, "baseline": baseline, "ratio": ratio, "goal": goal, "unit": unit, **memory,
        "note": note,
    }  # fmt: skip


def measure(cases: Iterable[Case], options: Options) -> Iterator[Row]:
    """Yield the rows as they are measured. What is missing or out of the budget is a row that says so."""
    left = list(cases)
    end = time.monotonic() + options.seconds
    while left:
        case = left.pop(0)
        to_come = sum(not each.lacks for each in left)
        share = 2 * (end - time.monotonic()) / (to_come + 2)  # most cases need less than their share
        if case.lacks:
            yield row(case.name, NAN, NAN, note=f"not measured: {case.lacks}")
            continue
        try:
            with at_most(share):
                found = case.measure()
        except OutOfTimeError:
            yield row(case.name, NAN, NAN, note=f"not measured: no figure within {max(0, share):.0f} s")
            continue
        yield from found if isinstance(found, list) else [found]


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError in the block after so many seconds; a child that it waits for is killed."""

    def stop(*_: object) -> NoReturn:
        raise OutOfTimeError

    if seconds <= 0:
        raise OutOfTimeError
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def in_turn(*sides: Callable[[], object], repeats: int = 3, cpu_seconds: bool = False) -> list[float]:
    """Return the median seconds of each side. They alternate, so the load of the machine affects all equally."""
    import torch

    clock = time.process_time if cpu_seconds else time.perf_counter
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(repeats + 1):
        for side, taken in zip(sides, seconds, strict=True):
            began = clock()
            side()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:  # the first call is a warm-up
                taken.append(clock() - began)
    return [statistics.median(taken) for taken in seconds]


def fresh(file: str, function: Callable[..., Any], *arguments: Any, options: Options) -> tuple[Any, float]:
    """Return what a function of the file returns in a process that does nothing else, and the peak MiB of that process.

    Arguments and result go through JSON. With `options.tiny` the function is called in this process.
    """
    if options.tiny:
        return function(*arguments), NAN
    # on Linux a child inherits the peak memory of the process that forks it; the shell in between has a small peak
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, file, "--call", function.__name__]
    with started([*command, json.dumps(arguments)]) as process:
        printed = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"{function.__name__}{arguments} ended with status {process.returncode}")
    result, peak_mib = json.loads(printed.splitlines()[-1])
    return result, peak_mib


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str] | None = None) -> "Iterator[subprocess.Popen[str]]":
    """Start a process whose output is read; kill it and its children if it has not ended with the block."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, text=True, env=environment, start_new_session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def peak_mib() -> float:
    """Return the peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def text(row: Row) -> str:
    """Return a row as a plain line."""
    if row["note"].startswith("not measured"):
        return f"{row['name']}: {row['note']}"
    both = " against ".join(f"{row[key]:.4g} {row['unit']}" for key in ("ours", "baseline") if not math.isnan(row[key]))
    ratio = "" if math.isnan(row["ratio"]) else f", {row['ratio']:.2f}x (goal {row['goal']})"
    peaks = [f"{row[key]:,.0f}" for key in ("ours_peak_mib", "baseline_peak_mib") if not math.isnan(row[key])]
    memory = f", peak {' / '.join(peaks)} MiB" if peaks else ""
    return f"{row['name']}: {both}{ratio}{memory}{'; ' if row['note'] else ''}{row['note']}"


def parser(about: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks take."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--seconds", type=float, default=120.0, help="budget; what does not fit is not measured")
    found.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    found.add_argument("--data", type=Path, metavar="FOLDER", help="folder with cifar10.tar.xz")
    found.add_argument("--tiny", action="store_true", help="the smallest setting, to try out the program")
    return found


def run(
    cases: Callable[[Options], list[Case]], about: str, functions: dict[str, Callable[..., Any]], pages: bool = False
) -> None:
    """Run a benchmark as a program: print each row as it is measured. `functions` are those called by `fresh`.

    With `pages` the program also takes files.
    """
    safe_streams()
    if sys.argv[1:2] == ["--call"]:
        result = functions[sys.argv[2]](*json.loads(sys.argv[3]))
        print(json.dumps([result, peak_mib()]))
        return
    command_line = parser(about)
    command_line.add_argument("--json", action="store_true", help="print the rows as JSON")
    command_line.set_defaults(pages=[])
    if pages:
        command_line.add_argument("pages", nargs="*", type=Path, metavar="PAGE.html")
    given = command_line.parse_args()
    options = Options(given.seconds, given.device, given.data, given.tiny, tuple(given.pages))
    for each in measure(cases(options), options):
        print(json.dumps(each) if given.json else text(each), flush=True)
