"""Values in the form of docs/reproduction/<sweep>.csv, for tests of scripts/reproduction."""

from collections.abc import Callable
from typing import Any

import pandas as pd

SEEDS = (0, 1, 2)


def values_of(*given: dict[str, Any], seeds: tuple[int, ...] = SEEDS) -> pd.DataFrame:
    """One row for each seed and each of `given`. A value may be a function of the seed."""
    rows = []
    for row in given:
        for seed in seeds:
            value: Any = row["value"]
            number = value(seed) if isinstance(value, Callable) else value  # type: ignore[arg-type]
            rows.append({"reference": "cl", "arm": "nscl", "epoch": 20, **row, "seed": seed, "value": number})
    return pd.DataFrame(rows)


def score(name: str, value: object, **more: object) -> dict[str, Any]:
    """A value of a score of arm `nscl` against `cl` after epoch 20, unless `more` says otherwise."""
    return {"score": name, "value": value, **more}
