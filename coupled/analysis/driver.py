"""What the analysis programs' command lines share: options that choose run, arms and epochs, and errors of one line."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from coupled.config.errors import Parser, complain, typed
from coupled.monitoring.terminal import imports_done, interrupted, say
from coupled.storage.snapshots import BadSnapshotError

CACHE_GIB = 10.0
SILENCE = 10.0  # seconds without a word, where no bar is


T = TypeVar("T")


def parser(program: str, description: str) -> Parser:
    """A parser with the options that every program about a run takes."""
    result = Parser(prog=program, description=description, allow_abbrev=False)
    add_run(result)
    result.add_argument("--compare", nargs="+", metavar="ARM", help="arms to compare (default: every other arm)")
    add_reference(result)
    add_epochs(result)
    return result


def add_reference(options: Parser) -> None:
    """Let `options` take the reference; None is the usual one of the run."""
    which = "arm they are compared with (default: cl, or the run's first arm if there is no cl)"
    options.add_argument("--reference", metavar="ARM", help=which)


def add_epochs(options: Parser) -> None:
    """Let `options` take the epochs and the folder of the tables."""
    options.add_argument(
        "--epochs",
        metavar="LIST",
        help="epochs such as 0,10,20 or first:last[:step], the last included (default: all that every arm has)",
    )
    skip = "pass over missing and damaged snapshots, saying which"
    options.add_argument("--skip-bad", action="store_true", help=skip)
    options.add_argument("--output", type=Path, metavar="DIR", help="folder to write to (default: DIR/analysis)")


def add_images(options: Parser) -> None:
    """Let `options` take which images are looked at, and on which device."""
    accept = "measure the images as they are, though they are not those of the run; their digest stands in every row"
    options.add_argument("--accept-changed-images", action="store_true", help=accept)
    options.add_argument("--samples", type=positive, metavar="N", help="at most N images a split, always the same ones")
    options.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one"
    )


def add_run(options: Parser) -> None:
    """Let `options` take the folder of a run; --run-dir is the spelling that torchrun does not take for its own."""
    where = "run folder (default: the newest one under runs/)"
    options.add_argument("--run", "--run-dir", dest="run", type=Path, metavar="DIR", help=where)


def add_cache(options: Parser) -> None:
    """Let `options` keep embeddings between calls: the limit in GiB, None without --cache."""
    what = f"keep embeddings in cache/ beside the tables, at most GIB there (default: {CACHE_GIB:g})"
    options.add_argument("--cache", nargs="?", const=CACHE_GIB, type=positive_number, metavar="GIB", help=what)


def run_program(
    program: Callable[[argparse.Namespace], int | None], options: Parser, arguments: Sequence[str] | None
) -> int:
    """Parse and run; returns the exit status, the program's or 0. A ValueError is bad input: one line, status 2. An
    OSError is a fault of the machine: one line, status 1. Ctrl-C is a line, too.

    What the program enters into `until_it_ends` of its options is left at its end.
    """
    imports_done()
    try:
        with ExitStack() as until_it_ends:
            given = options.parse_args(arguments)
            given.until_it_ends = until_it_ends
            return program(given) or 0
    except ValueError as error:
        return complain(options.prog, error)
    except OSError as error:
        return say_fault(options.prog, error)
    except KeyboardInterrupt:
        return interrupted(options.prog, "; rows that are written stay, and are not made again")


def say_fault(program: str, error: OSError) -> int:
    """Say in one line on stderr what the machine could not do, and with which file; the exit status, 1."""
    complain(program, ValueError(fault(error)))
    return 1


def fault(error: OSError) -> str:
    """The files of an OSError, if it names any, and the reason."""
    where = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{where}: {error.strerror}" if where else error.strerror or str(error)


def command(program: str, run: Path, *options: str) -> list[str]:
    """The words of a command line that runs an analysis program on `run`, as they can be typed in this directory."""
    return ["python", typed(Path(__file__).parents[2] / "analysis" / f"{program}.py"), "--run", str(run), *options]


def typed_command(program: str, run: Path, *options: str) -> str:
    """The same as one line."""
    return shlex.join(command(program, run, *options))


def tracked(items: Iterable[T], name: str) -> Iterator[T]:
    """The items one by one, with a bar on a terminal; elsewhere, now and then, a line on how far it is."""
    every = list(items)
    if os.environ.get("RANK", "0") != "0":
        yield from every
        return
    console = Console(stderr=True)
    if console.is_terminal and not console.options.ascii_only:  # a bar that does not fit is cut with one "\u2026"
        yield from track(every, name, console=console)
        return
    began = said = time.monotonic()
    for done, item in enumerate(every, 1):
        yield item
        if time.monotonic() - said >= SILENCE and done < len(every):
            said = time.monotonic()
            left = timedelta(seconds=round((said - began) / done * (len(every) - done)))
            say(f"{name}: {done} of {len(every)}, {left} left", sys.stderr)


@contextmanager
def skipping(skip: bool) -> Iterator[None]:
    """Within, a bad snapshot ends the block but not the program, if the user asked for that with --skip-bad."""
    try:
        yield
    except BadSnapshotError as error:
        if not skip:
            raise
        if os.environ.get("RANK", "0") == "0":  # every rank skips it
            say(f"skipped: {error}", sys.stderr)


def positive(text: str) -> int:
    """An integer of 1 or more, for argparse's `type`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; a whole number of 1 or more is allowed")
    return int(text)


def positive_number(text: str) -> float:
    """A number above 0, for argparse's `type`."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; a number above 0 is allowed")
    return number
