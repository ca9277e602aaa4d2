"""The Python API: which objects mkdocstrings shows, from the public names of the package."""

import coupled
from coupled import metrics
from coupled.cli import COMMANDS


def markdown() -> str:
    """A section for each group of public names."""
    computes = [
        command.program.replace(":main", ".compute")
        for command in COMMANDS.values()
        if command.program.startswith("coupled.analysis.") and hasattr(_module(command.program), "compute")
    ]
    parts = [
        "## coupled",
        *map(_object, [_home(name) for name in coupled.__all__ if name not in ("__version__", "metrics")]),
        "## Analyses",
        "Each method of `Run` with the same name calls one of these functions with the run as its first argument.",
        *map(_object, computes),
        "## coupled.metrics",
        *map(_object, [f"{metrics._MODULES[name]}.{name}" for name in metrics.__all__]),
        "## Objectives and datasets of your own",
        *map(_object, [f"coupled.objectives.{name}" for name in ("Needs", "Head", "Inputs", "Loss")]),
        *map(_object, [f"coupled.datasets.{name}" for name in ("ImageDataset", "ImageFiles")]),
    ]
    return "\n\n".join(parts)


def _module(program: str) -> object:
    from importlib import import_module

    return import_module(program.partition(":")[0])


def _home(name: str) -> str:
    return "coupled.train.train" if name == "train" else f"{coupled._HOMES[name]}.{name}"


def _object(path: str) -> str:
    return f"::: {path}"
