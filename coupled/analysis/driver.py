"""Shared parts of the analysis programs: errors of one line, progress, suggested command lines."""

import argparse
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from rich.console import Console
from rich.progress import track

from coupled.analysis.against import identity, joined
from coupled.analysis.run import open_run
from coupled.analysis.tables import as_frame
from coupled.analysis.tidy_csv import open_table
from coupled.config.arm_sections import not_shared_text
from coupled.config.command_line import Parser
from coupled.config.errors import report_error
from coupled.monitoring.commands import suggest
from coupled.monitoring.terminal import imports_done, interrupted, say
from coupled.storage.atomic_files import write_durably
from coupled.storage.run_lock import run_lock
from coupled.storage.snapshots import BadSnapshotError
from coupled.stream.seeds import determinism

if TYPE_CHECKING:
    import pandas as pd

SILENCE = 10.0  # seconds between lines of progress, if no progress bar is shown


T = TypeVar("T")


def run_program(
    program: Callable[[argparse.Namespace], int | None], options: Parser, arguments: Sequence[str] | None
) -> int:
    """Parse the arguments, run the program, and return its exit status, or 0 for None.

    A ValueError is bad input: one line, status 2. An OSError is a fault of the machine: one line, status 1. Ctrl-C
    prints one line as well.
    """
    imports_done()
    given = argparse.Namespace()
    try:
        given = options.parse_args(arguments)
        return program(given) or 0
    except ValueError as error:
        return report_error(options.prog, of_option(error, given))
    except OSError as error:
        return report_fault(options.prog, error)
    except KeyboardInterrupt:
        return interrupted(options.prog, "; rows already written are kept and will not be computed again")


def of_option(error: ValueError, given: argparse.Namespace) -> ValueError:
    """Turn an error about an argument, "num_images: ...", into one about the option: "--num-images: ..."."""
    argument, colon, rest = str(error).partition(":")
    if not colon or argument not in {*vars(given), "run_dir"} or isinstance(error, UnicodeError):
        return error
    return ValueError(f"--{argument.replace('_', '-')}:{rest}")


class RowExists(Protocol):
    """A function that says whether a table already has a row."""

    def __call__(self, table: str, *key: object, resamples: int | None = None) -> bool:
        """Whether a row with these key cells is in the table; with `resamples`, with an interval from so many."""


class Chunk(NamedTuple):
    """Rows of a table that are written together; `renew` replaces rows of the same key that have other values."""

    table: str
    rows: Iterable[Sequence[object]]
    renew: bool = False


@dataclass(frozen=True)
class Plan:
    """A checked analysis: the tables that it fills, and a generator that computes their missing rows."""

    tables: Sequence[str]
    chunks: Callable[[RowExists], Iterator[Chunk]]
    finish: Callable[[Path], int | None] | None = None  # after the rows, given the folder of tables; the exit status


def to_frame(plan: Plan, *tables: str) -> "pd.DataFrame":
    """Return all rows of `tables` (default: all of the plan's), which have the same columns, as a DataFrame.

    torch runs with deterministic algorithms meanwhile.
    """
    wanted = tables or tuple(plan.tables)
    with determinism(True, None):
        chunks = plan.chunks(lambda table, *key, resamples=None: False)
        rows = [tuple(row) for chunk in chunks if chunk.table in wanted for row in chunk.rows]
    return as_frame(rows, wanted[0])


def append_missing(
    select: Callable[..., Any], plan: Callable[..., Plan], options: argparse.Namespace, writes: bool = True
) -> int:
    """Add the missing rows to the tables of a run and return the exit status.

    The folder of the tables is locked meanwhile; it may hold rows of one run only. `select` and `plan` are called with
    the options that they have as parameters. A rank with `writes=False` computes its part and writes nothing.
    """
    allow_code = getattr(options, "allow_code", False)
    run = joined(open_run(options.run, allow_code), getattr(options, "against", None), allow_code)
    output = options.output or run.tables
    given = {name: value for name, value in vars(options).items() if name != "run"}
    given["output"] = output
    chosen = select(run, **_named_by(select, given))
    planned = plan(run, chosen, **_named_by(plan, given))
    say(f"run {run.path}{'' if options.run else ' (the newest under runs/)'}: {chosen}")
    if own := not_shared_text(run.description["settings"]):
        say(own)
    with run_lock(output, "--output") if writes else nullcontext(), determinism(True, None):
        if writes:
            claim(output, identity(run))
        table = cache(lambda name: open_table(output / name))  # opened only after the images were checked
        for chunk in planned.chunks(lambda name, *key, resamples=None: table(name).has(*key, resamples=resamples)):
            if writes:
                (table(chunk.table).renew if chunk.renew else table(chunk.table).append)(chunk.rows)
        for each in map(table, planned.tables if writes else ()):
            say(f"{each.path}: {each.written} new rows, {len(each.held)} in all")
        return (planned.finish(output) if planned.finish and writes else None) or 0


def _named_by(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in inspect.signature(function).parameters if name in given}


def claim(output: Path, owner: dict[str, Any]) -> None:
    """Record in output/source.json whose rows the folder holds. Raises ValueError if they are another run's."""
    path = output / "source.json"
    if not path.is_file():
        write_durably(path, (json.dumps(owner) + "\n").encode())
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # includes JSONDecodeError and UnicodeDecodeError
        raise ValueError(f"{path}: not readable as JSON ({error}); choose another --output") from None
    if known != owner:
        raise ValueError(f"--output: '{output}' holds rows of another run (see {path}); choose another folder")


def report_fault(program: str, error: OSError) -> int:
    """Print one line on stderr with the file and the reason of an OSError; return the exit status, 1."""
    report_error(program, ValueError(fault(error)))
    return 1


def fault(error: OSError) -> str:
    """The text of an OSError: its files, if it names any, and the reason."""
    where = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{where}: {error.strerror}" if where else error.strerror or str(error)


def typed_command(program: str, run: Path, *options: str) -> str:
    """The command line that runs another analysis program on `run`."""
    return suggest(program.replace("_", "-"), "--run-dir", str(run), *options)


def tracked(items: Iterable[T], name: str) -> Iterator[T]:
    """Yield the items with a progress bar on a terminal; elsewhere with a line of progress every few seconds."""
    every = list(items)
    if os.environ.get("RANK", "0") != "0":
        yield from every
        return
    console = Console(stderr=True, force_terminal=sys.stderr.isatty())
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
    """A context in which, with `skip` (--skip-corrupt), a bad snapshot ends the block but not the program."""
    try:
        yield
    except BadSnapshotError as error:
        if not skip:
            raise
        if os.environ.get("RANK", "0") == "0":  # every rank skips it, one prints
            say(f"skipped: {error}", sys.stderr)
