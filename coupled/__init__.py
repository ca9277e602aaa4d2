"""Train objectives in lockstep under shared randomness, and measure how far the models drift.

Example:
    >>> import coupled
    >>> run = coupled.train("demo", run_dir="runs/x", epochs=2, arms={"cl": "dcl", "nscl": "nscl"})  # doctest: +SKIP
    >>> run.weight_gap(compare=["nscl"])  # a pandas DataFrame  # doctest: +SKIP

Names are imported on first use, so `import coupled` itself is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coupled import metrics, train
    from coupled.analysis.run import Run, open_run
    from coupled.config.load import load_settings
    from coupled.config.schema import Settings

__all__ = ["Run", "Settings", "__version__", "load_settings", "metrics", "open_run", "train"]

_HOMES = {
    "Run": "coupled.analysis.run",
    "open_run": "coupled.analysis.run",
    "load_settings": "coupled.config.load",
    "Settings": "coupled.config.schema",
}


def __getattr__(name: str) -> Any:
    if name in ("metrics", "train"):  # modules; the module `train` is callable
        return importlib.import_module(f"coupled.{name}")
    if name == "__version__":
        return importlib.import_module("coupled._version").version()
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'coupled' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
