"""Metrics as plain functions of numpy arrays, torch tensors and blocks of rows: `from coupled.metrics import cka`.

A pair metric compares two representations of the same images: `cka(x, y)`, `procrustes(x, y)`,
`mutual_knn(x, y, k=10)`. An arm metric measures one: `effective_rank(x)`, `cdnv(x, labels)`,
`knn(train, train_labels, test, test_labels, k=20)`. `weight_gap(state_a, state_b)` compares two state dicts.
`dir(coupled.metrics)` lists all metrics. Each is in the file of its name in `pair/` or `arm/`, which is imported on
first access, so that this module imports neither torch nor scikit-learn.
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

_MODULES = {
    found.name: f"{__name__}.{folder}.{found.name}"
    for folder in ("pair", "arm")
    for found in iter_modules([str(Path(__file__).parent / folder)])
    if not found.name.startswith("_")
} | {"weight_gap": f"{__name__}.state_dicts"}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no metric '{name}' (known: {', '.join(__all__)})")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
