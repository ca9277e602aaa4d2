"""Trackers: services that show a run's numbers while it trains, chosen by the setting `trackers`.

Each is fed by rank 0 from the rows of steps.csv, epochs.csv and monitor.csv, in a thread beside training. A tracker
that fails is left out with one warning, and training goes on. What a tracker has been given is noted in
trackers/<name>.json of the run folder: a resumed run continues its series, and feeds from the files what it lacks.
"""

from collections.abc import Sequence
from importlib.util import find_spec

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # tracker -> the package it needs


def check_installed(names: Sequence[str]) -> None:
    """Raise ValueError for the first tracker whose package is not installed; nothing is imported."""
    for name in names:
        spec = find_spec(PACKAGES[name])
        if spec is None or spec.origin is None:  # without an origin: a folder of that name, such as wandb's own
            raise ValueError(f"trackers: {name} needs a package: pip install {PACKAGES[name]}")
