"""The command line, from each command's `--help`."""

import os
from unittest import mock

from markdown_text import block, plain

from coupled import cli

WIDTH = "88"  # columns of a help


def markdown() -> str:
    """A section for each command with its help, the overview first."""
    with mock.patch.dict(os.environ, {"COLUMNS": WIDTH, "NO_COLOR": "1"}):
        parts = [block(_as_installed(cli.overview()))]
        for name, command in cli.COMMANDS.items():
            text = cli.imported(command.parser)().format_help()
            summary = plain(f"{command.summary[:1].upper()}{command.summary[1:]}.")
            parts += [f"## coupled {name}", summary, block(_as_installed(text))]
    return "\n\n".join(parts)


def _as_installed(text: str) -> str:
    """A help as the installed command shows it, whichever program asks for it here."""
    return text.replace("python -m coupled ", "coupled ")
