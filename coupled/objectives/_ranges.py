"""Ranges of options, for the `check` of an objective."""

import math


def above_zero(**options: float) -> None:
    """Raise ValueError naming the first option that is not a finite number above 0."""
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: {value} is not allowed; give a finite number above 0")


def not_negative(**options: float) -> None:
    """Raise ValueError naming the first option that is not a finite number from 0 on."""
    for name, value in options.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: {value} is not allowed; give 0 or a finite number above it")
