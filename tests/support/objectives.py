"""Every objective of the package with small options: queues, heads and hidden layers of usual size take long."""

import inspect
from typing import Any

from coupled.config import by_name

PROTOTYPES = 7
KEPT, HIDDEN = {"queue_size": 64, "num_prototypes": PROTOTYPES, "num_matches": 3}, {"hidden_dim": 32}
ONE_CELL = {"num_matches": 1, "map_dim": 8}  # the tiny encoder's feature map has one cell


def small_options(name: str, options: dict[str, Any] = KEPT) -> dict[str, Any]:
    """Those of the options that the objective takes."""
    takes = inspect.signature(getattr(by_name.find("coupled.objectives", name), name)).parameters
    return {option: value for option, value in options.items() if option in takes}


def small_arms() -> dict[str, dict[str, Any]]:
    """An arm for every objective, called as its objective."""
    return {
        name: {"objective": name, **small_options(name, KEPT | HIDDEN | ONE_CELL)}
        for name in by_name.known("coupled.objectives")
    }
