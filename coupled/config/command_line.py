"""Command lines: the parser, types of options, ranges of numbers, the end of `--help`, packaged settings files.

`--help` imports this module, so it imports no large library.
"""

import argparse
import re
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, NoReturn

from coupled.config.by_name import did_you_mean
from coupled.monitoring.commands import program_name, suggest

PACKAGED = Path(__file__).parents[1] / "configs"
RANGE = re.compile(r"-?\d{1,18}(:-?\d{1,18}){1,2}")
LONGEST_RANGE = 1_000_001  # epochs of the longest run, and 0


class _Once(argparse.Action):
    """Store the values of an argument and refuse an option that is repeated; argparse would silently use the last."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        assert isinstance(parser, Parser)
        if option and self.dest in parser.given:
            parser.error(f"{option}: given twice; give it once, with all its values")
        parser.given.add(self.dest)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises ValueError for bad input. Options cannot be repeated or abbreviated."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **options})
        self.register("action", None, _Once)
        self.given: set[str] = set()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, without the options of an earlier command line."""
        self.given.clear()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise ValueError with argparse's message, which names option, value and what is allowed."""
        missing = message.startswith("the following arguments are required")
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message)
        if message.startswith(unknown := "unrecognized arguments: "):
            options = [option for action in self._actions for option in action.option_strings]
            message += did_you_mean(message.removeprefix(unknown).split()[0].partition("=")[0], options)
        elif choice:
            message += did_you_mean(choice[1], re.findall(r"[\w./-]+", choice[2]))
        raise ValueError(f"{message}; see `{self.prog} --help`" if missing else message)


def command_parser(command: str, description: str, examples: Sequence[str], files: Sequence[str]) -> Parser:
    """Return the parser of a command, whose help ends with examples and the files that the program writes.

    Args:
        command: such as "weight-gap".
        description: one or more lines of text.
        examples: the words that follow the command; the help adds the command as the user started it.
        files: one line per file, such as "analysis/weight_gap.csv   distances of every tensor".
    """
    start = suggest(command)
    lines = ["examples:", *(f"  {start} {words}" for words in examples), "", "files written:"]
    epilog = "\n".join([*lines, *(f"  {line}" for line in files)])
    return Parser(prog=program_name(command), description=description, epilog=epilog)


def positive(text: str) -> int:
    """Return an integer of 1 or more, for argparse's `type`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; a whole number of 1 or more is allowed")
    return int(text)


def positive_number(text: str) -> float:
    """Return a number above 0, for argparse's `type`."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; a number above 0 is allowed")
    return number


def parse_range(text: str) -> range | None:
    """Return the integers of first:last[:step], the last included; None if `text` is not a range.

    Raises ValueError for a range without numbers, or with more than `LONGEST_RANGE`.

    Example:
        >>> list(parse_range("0:20:5"))
        [0, 5, 10, 15, 20]
    """
    if not RANGE.fullmatch(text):
        return None
    first, last, step = [*map(int, text.split(":")), 1][:3]
    numbers = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
    if not 0 < len(numbers) <= LONGEST_RANGE:
        raise ValueError(f"the range {text} holds no numbers, or more than {LONGEST_RANGE:,}; write first:last[:step]")
    return numbers


def parse_epochs(text: str) -> set[int]:
    """Return the numbers of a list of numbers and ranges such as "0,5,10:30:10". Raises ValueError."""
    epochs: set[int] = set()
    for part in text.split(","):
        if part.strip().isdecimal():
            epochs.add(int(part))
            continue
        try:
            numbers = parse_range(part.strip())
        except ValueError as error:
            raise ValueError(f"--epochs: got '{text}'; {error}") from None
        if numbers is None or min(numbers) < 0:
            raise ValueError(
                f"--epochs: got '{text}'; allowed is a list of numbers and first:last[:step], such as 0,5,10:30:10"
            )
        epochs.update(numbers)
    return epochs


def packaged_configs() -> list[str]:
    """Return the names of the settings files in the package, sorted."""
    return sorted(path.stem for path in PACKAGED.glob("*.yaml"))


def find_config(name: str | Path) -> Path:
    """Return the settings file `name`: a path, or the name of a packaged one such as "demo". Raises ValueError."""
    path, packaged = Path(name), PACKAGED / f"{name}.yaml"
    if path.is_file():
        return path
    if str(name) in packaged_configs():
        return packaged
    known = ", ".join(packaged_configs())
    if path.is_dir():
        raise ValueError(f"config: '{name}' is a folder; pass a file or the name of a packaged settings file ({known})")
    near = did_you_mean(str(name), packaged_configs())
    raise ValueError(f"config: no file '{name}'{near}; pass a path or the name of a packaged settings file ({known})")
