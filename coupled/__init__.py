"""`coupled`: train objectives in lockstep under shared randomness, and keep the weights of every epoch."""

from importlib import import_module
from typing import Any

PUBLIC = {"Run": "coupled.analysis.run", "open_run": "coupled.analysis.run"}  # imported when they are asked for


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    if name == "__version__":
        from coupled._version import version

        return version()
    raise AttributeError(f"module 'coupled' has no attribute '{name}'")
