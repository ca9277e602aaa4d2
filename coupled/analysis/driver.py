"""What the analysis programs share: errors of one line, progress, suggested command lines."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from coupled.config.command_line import Parser
from coupled.config.errors import complain
from coupled.monitoring.commands import suggest
from coupled.monitoring.terminal import imports_done, interrupted, say
from coupled.storage.snapshots import BadSnapshotError

SILENCE = 10.0  # seconds without a word, where no bar is


T = TypeVar("T")


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


def typed_command(program: str, run: Path, *options: str) -> str:
    """A command line that runs an analysis program on `run` where the user stands."""
    return suggest(program.replace("_", "-"), "--run-dir", str(run), *options)


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
    """Within, a bad snapshot ends the block but not the program, if the user asked for that with --skip-corrupt."""
    try:
        yield
    except BadSnapshotError as error:
        if not skip:
            raise
        if os.environ.get("RANK", "0") == "0":  # every rank skips it
            say(f"skipped: {error}", sys.stderr)
