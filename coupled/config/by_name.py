"""Find objectives, datasets and metrics by the name of their file. To add one, add a file."""

import difflib
import importlib
import importlib.util
import inspect
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
SHORT_CUTOFF = 0.6  # of a name of at most 4 letters that begins with the same letter; "moc" and "mmcr" have 0.57
SHORT = 4


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: "; did you mean 'nscl'?", or "" if no known name is close.

    Upper and lower case, and - and _, count as the same letter.
    """
    spelled, typed = {_plain(each): each for each in known if each}, _plain(name)
    swapped = [each for each in spelled if sorted(each) == sorted(typed)]  # "dlc" is as near to "l_c" as to "dcl"
    if len(typed) <= SHORT:  # "gpu" is not meant to be "cpu"
        near = difflib.get_close_matches(typed, [each for each in spelled if each[0] == typed[:1]], 1, SHORT_CUTOFF)
    else:
        near = difflib.get_close_matches(typed, list(spelled), 1, CUTOFF)
    ends = [each for each in spelled if each.endswith(f"_{typed}")]  # "lr" for "base_lr"
    near = swapped or near or (ends if len(ends) == 1 else [])
    return f"; did you mean '{spelled[near[0]]}'?" if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def with_option(package: str, option: str) -> list[str]:
    """Return the names of the modules of `package` whose function of the same name has the keyword `option`."""
    functions = {name: getattr(find(package, name), name, None) for name in known(package)}
    return [name for name, each in functions.items() if each and option in inspect.signature(each).parameters]


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
