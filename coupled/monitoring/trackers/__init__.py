"""Trackers: services that show a run's numbers while it trains, chosen by the setting `trackers`.

Rank 0 sends the rows of steps.csv, epochs.csv and monitor.csv to each tracker in a background thread. A tracker that
fails is dropped with one warning, and training continues. trackers/<name>.json in the run folder records which rows a
tracker has received; a resumed run continues its series and sends the missing rows from the CSV files.
"""

from collections.abc import Sequence
from importlib.util import find_spec

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # tracker -> the package it needs


def check_installed(names: Sequence[str]) -> None:
    """Raise ValueError for the first tracker whose package is not installed; imports nothing."""
    for name in names:
        spec = find_spec(PACKAGES[name])
        if spec is None or spec.origin is None:  # without an origin: a folder of that name, such as wandb's own
            raise ValueError(f"trackers: {name} needs a package: pip install {PACKAGES[name]}")
