"""What the analysis programs' command lines share: options that choose run, arms and epochs, and errors of one line."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An argparse parser whose complaint about bad input is a ValueError."""

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with argparse's message, which names option, value and what is allowed."""
        raise ValueError(message)


def parser(program: str, description: str) -> Parser:
    """A parser with the options that every program about a run takes."""
    result = Parser(prog=program, description=description, allow_abbrev=False)
    add_run(result)
    result.add_argument("--compare", nargs="+", metavar="ARM", help="arms to compare (default: every other arm)")
    result.add_argument("--reference", default="cl", metavar="ARM", help="arm they are compared with (default: cl)")
    add_epochs(result)
    return result


def add_epochs(options: Parser) -> None:
    """Let `options` take the epochs and the folder of the tables."""
    options.add_argument(
        "--epochs",
        metavar="LIST",
        help="epochs such as 0,10,20 or first:last[:step], the last included (default: all that every arm has)",
    )
    options.add_argument("--output", type=Path, metavar="DIR", help="folder to write to (default: DIR/analysis)")


def add_run(options: Parser) -> None:
    """Let `options` take the folder of a run; --run-dir is the spelling that torchrun does not take for its own."""
    where = "run folder (default: the newest one under runs/)"
    options.add_argument("--run", "--run-dir", dest="run", type=Path, metavar="DIR", help=where)


def run_program(program: Callable[[argparse.Namespace], None], options: Parser, arguments: Sequence[str] | None) -> int:
    """Parse and run; returns the exit status. A ValueError is bad input: one line on stderr, status 2."""
    try:
        program(options.parse_args(arguments))
    except ValueError as error:
        print(f"{options.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def positive(text: str) -> int:
    """An integer of 1 or more, for argparse's `type`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; a whole number of 1 or more is allowed")
    return int(text)
