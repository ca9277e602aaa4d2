"""Generate the page of the command line from the `--help` of each command."""

import os
from unittest import mock

from markdown_text import block, plain

from coupled import cli

WIDTH = "88"  # columns of a help


def markdown() -> str:
    """Return the overview and one section for each command with its help."""
    with mock.patch.dict(os.environ, {"COLUMNS": WIDTH, "NO_COLOR": "1"}):
        parts = [block(_as_installed(cli.overview()))]
        for name, command in cli.COMMANDS.items():
            text = cli.imported(command.parser)().format_help()
            summary = plain(f"{command.summary[:1].upper()}{command.summary[1:]}.")
            parts += [f"## coupled {name}", summary, block(_as_installed(text))]
    return "\n\n".join(parts)


def _as_installed(text: str) -> str:
    """Return a help text as the installed command `coupled` prints it."""
    return text.replace("python -m coupled ", "coupled ")
