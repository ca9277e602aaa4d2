"""Find objectives, datasets and metrics by the name of their file. To add one, add a file."""

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from types import ModuleType

KINDS = {
    "coupled.objectives": "objective",
    "coupled.datasets": "dataset",
    "coupled.metrics.pair": "pair metric",
    "coupled.metrics.arm": "arm metric",
}
CUTOFF = 0.7  # similarity of a typo in difflib's measure; "count" and "contrast" have 0.62


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: "; did you mean 'nscl'?", or "" if no known name is close."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=CUTOFF)
    return f"; did you mean '{near[0]}'?" if near else ""


def known(package: str) -> tuple[str, ...]:
    """Return the names of the public modules of `package` (such as "coupled.objectives"), sorted.

    A module with a leading underscore is not public.
    """
    spec = importlib.util.find_spec(package)  # does not import the package, so that --help needs no torch
    paths = spec.submodule_search_locations if spec else None
    return tuple(sorted(m.name for m in pkgutil.iter_modules(paths) if not (m.ispkg or m.name.startswith("_"))))


def find(package: str, name: str) -> ModuleType:
    """Return the module `name` of `package`.

    Raises ValueError with the nearest and all known names if there is no such file.
    """
    names = known(package)
    if name not in names:
        kind = KINDS[package]
        raise ValueError(f"unknown {kind} '{name}'{did_you_mean(name, names)} (known: {', '.join(names)})")
    return importlib.import_module(f"{package}.{name}")
