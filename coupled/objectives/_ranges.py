"""Ranges of options, for the `check` of an objective."""

SMALLEST, LARGEST = 1e-6, 1e6  # of a number with a fraction: far beyond all uses, and far within float32


def above_zero(**options: float) -> None:
    """Raise ValueError naming the first option that is not a finite number above 0, or too near to 0 or too large."""
    for name, value in options.items():
        if not SMALLEST <= value <= LARGEST:
            raise ValueError(f"{name}: {value} is not allowed; give a number from {SMALLEST:g} to {LARGEST:g}")


def not_negative(**options: float) -> None:
    """Raise ValueError naming the first option that is not a finite number from 0 on, or too large."""
    for name, value in options.items():
        if not 0 <= value <= LARGEST:
            raise ValueError(f"{name}: {value} is not allowed; give a number from 0 to {LARGEST:g}")
