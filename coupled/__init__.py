"""`coupled`: train objectives in lockstep under shared randomness, and keep the weights of every epoch."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from coupled._version import version

        return version()
    raise AttributeError(f"module 'coupled' has no attribute '{name}'")
