"""Objectives, image sets and metrics are found by the name of their file: to add one is to add a file."""

import difflib
import importlib
import pkgutil
from types import ModuleType

KINDS = {
    "coupled.objectives": "objective",
    "coupled.datasets": "dataset",
    "coupled.metrics.pair": "pair metric",
    "coupled.metrics.arm": "arm metric",
}


def known(package: str) -> tuple[str, ...]:
    """Names of the public modules of `package` (such as "coupled.objectives"), sorted; a leading underscore hides
    one.
    """
    paths = importlib.import_module(package).__path__
    return tuple(sorted(m.name for m in pkgutil.iter_modules(paths) if not (m.ispkg or m.name.startswith("_"))))


def find(package: str, name: str) -> ModuleType:
    """The module `name` of `package`.

    Raises ValueError, naming the nearest and all known names, if there is no such file.
    """
    names = known(package)
    if name not in names:
        kind = KINDS[package]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"unknown {kind} '{name}'{hint} (known: {', '.join(names)})")
    return importlib.import_module(f"{package}.{name}")
