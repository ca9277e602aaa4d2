"""Ranges of options, used by the `check` of an objective."""

WIDEST = 2**16
SMALLEST, LARGEST = 1e-6, 1e6  # limits of real numbers: wider than any use, within float32


def above_zero(**options: float) -> None:
    """Raise ValueError for the first option that is not from SMALLEST to LARGEST."""
    for name, value in options.items():
        if not SMALLEST <= value <= LARGEST:
            raise ValueError(f"{name}: {value} is not allowed; give a number from {SMALLEST:g} to {LARGEST:g}")


def not_negative(**options: float) -> None:
    """Raise ValueError for the first option that is not from 0 to LARGEST."""
    for name, value in options.items():
        if not 0 <= value <= LARGEST:
            raise ValueError(f"{name}: {value} is not allowed; give a number from 0 to {LARGEST:g}")


def within_one(**options: float) -> None:
    """Raise ValueError for the first option that is not between -1 and 1."""
    for name, value in options.items():
        if not -1 < value < 1:
            raise ValueError(f"{name}: {value} is not allowed; give a number above -1 and below 1")


def share(**options: float) -> None:
    """Raise ValueError for the first option that is not from 0 to 1."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: {value} is not allowed; give a share from 0 to 1")


def check_labels_seen(label_fraction: float, label_noise: float, label_groups: int | None) -> None:
    """Raise ValueError for an option of `Needs` that changes the labels and is out of range."""
    share(label_fraction=label_fraction, label_noise=label_noise)
    if label_groups is not None and label_groups < 2:
        raise ValueError(f"label_groups: {label_groups} is not allowed; give 2 or more, at most the number of classes")


def check_width(**options: int) -> None:
    """Raise ValueError for the first width that is not from 1 to WIDEST."""
    for name, value in options.items():
        if not 1 <= value <= WIDEST:
            raise ValueError(f"{name}: {value} is not allowed; give a width from 1 to {WIDEST}")
