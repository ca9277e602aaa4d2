"""`coupled COMMAND`: a command is the `main` of a module."""

import importlib
import sys
from collections.abc import Sequence

from coupled.monitoring.terminal import prepare_terminal, say

COMMANDS = {
    "train": "coupled.train",
    "weight-gap": "coupled.analysis.weight_gap",
    "alignment": "coupled.analysis.alignment",
    "quality": "coupled.analysis.quality",
    "collapse": "coupled.analysis.collapse",
    "losses": "coupled.analysis.losses",
    "bounds": "coupled.analysis.bounds",
    "verify": "coupled.analysis.verify",
    "figures": "coupled.analysis.figures",
    "demo": "coupled.analysis.demo",
    "report": "coupled.analysis.report.program",
    "sweep": "coupled.sweep.program",
    "prepare-data": "coupled.prepare_data",
}

ANALYSES = ("weight-gap", "alignment", "quality", "collapse", "losses", "bounds", "verify", "figures", "report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if name not in COMMANDS:
        say(f"coupled: unknown command '{name}' (known: {', '.join(COMMANDS)})", sys.stderr)
        return 2
    prepare_terminal()
    status = importlib.import_module(COMMANDS[name]).main(rest[:-1])
    return int(status)
