"""Generate the page of the Python API: the mkdocstrings directives of all public names of the package."""

import inspect
from importlib import import_module

from docstring_sections import COMPUTES

import coupled
from coupled import metrics
from coupled.cli import COMMANDS

OF_OBJECTIVES, OF_DATASETS = ("Needs", "Head", "Inputs", "Loss"), ("ImageDataset", "ImageFiles")


def markdown() -> str:
    """Return one section for each group of public names."""
    names = [name for name in coupled.__all__ if name not in ("__version__", "metrics")]
    programs = [command.program.partition(":")[0] for command in COMMANDS.values()]
    analyses = [f"{each}.compute" for each in programs if hasattr(import_module(each), "compute")]
    called = [name for method in vars(coupled.Run).values() for name in COMPUTES.findall(method.__doc__ or "")]
    analyses = list(dict.fromkeys([*analyses, *called]))
    # methods of `Run` that are defined in another module
    assigned = [(name, each) for name, each in vars(coupled.Run).items() if inspect.isfunction(each)]
    elsewhere = [(name, each) for name, each in assigned if each.__module__ != coupled.Run.__module__]
    parts = [
        "## coupled",
        *(_object(_home(name), f"coupled.{name}", name) for name in names),
        *(_object(f"{each.__module__}.{name}", f"coupled.Run.{name}", f"Run.{name}") for name, each in elsewhere),
        "## Analyses",
        "The methods of `Run` call these functions with the run as their first argument.",
        *(_object(each, each, ".".join(each.split(".")[-2:])) for each in analyses),
        "## coupled.metrics",
        "Functions of numpy arrays, torch tensors or blocks of rows. [Metrics](metrics.md) has their formulas.",
        *(_object(f"{metrics._MODULES[name]}.{name}", f"coupled.metrics.{name}", name) for name in metrics.__all__),
        "## User-defined objectives and datasets",
        *(_object(f"coupled.objectives.{name}", f"coupled.objectives.{name}", name) for name in OF_OBJECTIVES),
        *(_object(f"coupled.datasets.{name}", f"coupled.datasets.{name}", name) for name in OF_DATASETS),
    ]
    return "\n\n".join(parts)


def _home(name: str) -> str:
    return "coupled.train.train" if name == "train" else f"{coupled._HOMES[name]}.{name}"


def _object(path: str, heading: str, label: str) -> str:
    """Return the mkdocstrings directive: the object, its public name and its name in the table of contents."""
    return f"::: {path}\n    options:\n      heading: {heading}\n      toc_label: {label}"
