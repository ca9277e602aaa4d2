"""Find pair metrics and arm metrics: those of the package by the name of their file, and user-defined ones."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from coupled.config.by_name import did_you_mean, find, known
from coupled.config.monitor import OF_ONE_ARM
from coupled.config.unchanged import watch
from coupled.config.user_code import UserCode, errors_named, import_code, is_reference, of_callable, refused
from coupled.metrics import arm, pair
from coupled.metrics.arm import Labelled, Measured, Variant
from coupled.metrics.undefined import Undefined
from coupled.stream.seeds import generator_states

KEY = "--metrics"
DECLARED: dict[str, Any] = {"SUBSET": 1000, "RANGE": (-inf, inf), "DIRECTION": "higher"}
PAIR_EXPECTED = "expected is a pure function f(x_nD, y_nE) that returns a float (docs/your_own.md)"
ARM_EXPECTED = "expected is a pure function f(images), or f(train, test), that returns a float (docs/your_own.md)"


@dataclass(frozen=True)
class PairMetric:
    """What a file of `coupled.metrics.pair` declares."""

    name: str
    range: tuple[float, float]
    direction: str
    invariances: frozenset[str]
    transform: str  # "" for a metric of a subset
    subset: int | None  # None for a metric that is exact in one pass
    value: Callable[..., float]


@dataclass(frozen=True)
class ArmMetric:
    """What a file of `coupled.metrics.arm` declares."""

    name: str
    sees: str
    variants: tuple[Variant, ...]
    range: tuple[float, float]
    invariances: dict[str, frozenset[str]] = field(hash=False)  # of each value, by the name of its variant
    values: Callable[..., dict[str | Variant, Measured]]
    labels: bool  # whether it needs labels
    splits: tuple[str, ...] = ("test",)  # that a classifier may be scored on

    def measured(self, *seen: object) -> dict[Variant, Measured]:
        """The values of the metric, by variant."""
        return {Variant.of(detail): value for detail, value in self.values(*seen).items()}


def pair_metric_names() -> tuple[str, ...]:
    """The names of all pair metrics, sorted."""
    return known(pair.__name__)


def arm_metric_names() -> tuple[str, ...]:
    """The names of all arm metrics, sorted."""
    return known(arm.__name__)


def find_pair_metrics(names: Iterable[str | Callable[..., Any]], key: str = KEY) -> list[PairMetric]:
    """The metrics called `names`. Raises ValueError that lists the known ones for a name without a file."""
    given = [each if isinstance(each, str) else of_callable(each, key).reference for each in names]
    modules = {name: find(pair.__name__, name) for name in given if not is_reference(name)}
    of_package = {
        name: PairMetric(
            name=name,
            range=module.RANGE,
            direction=module.DIRECTION,
            invariances=frozenset(module.INVARIANCES),
            transform=getattr(module, "TRANSFORM", ""),
            subset=getattr(module, "SUBSET", None),
            value=module.value,
        )
        for name, module in modules.items()
    }
    return [of_package[name] if name in of_package else user_pair_metric(name, key) for name in given]


def find_arm_metrics(names: Iterable[str | Callable[..., Any]], key: str = KEY) -> list[ArmMetric]:
    """The metrics called `names`. Raises ValueError that lists the known ones for a name without a file."""
    given = [each if isinstance(each, str) else of_callable(each, key).reference for each in names]
    modules = {name: find(arm.__name__, name) for name in given if not is_reference(name)}
    of_package = {
        name: ArmMetric(
            name,
            m.SEES,
            tuple(map(Variant.of, m.DETAILS)),
            m.RANGE,
            _invariances(m),
            m.values,
            _takes_labels(m),
            *_splits(m),
        )
        for name, m in modules.items()
    }
    return [of_package[name] if name in of_package else user_arm_metric(name, key) for name in given]


def _invariances(metric: ModuleType) -> dict[str, frozenset[str]]:
    """Return the invariances of each value of a file of `coupled.metrics.arm`, by the name of its variant."""
    names = dict.fromkeys(Variant.of(detail).name for detail in metric.DETAILS)
    of_all = metric.INVARIANCES
    return {name: frozenset(of_all[name] if isinstance(of_all, dict) else of_all) for name in names}


def _splits(metric: ModuleType) -> list[tuple[str, ...]]:
    return [metric.SPLITS] if hasattr(metric, "SPLITS") else []


def find_classifiers(names: Iterable[str]) -> list[ArmMetric]:
    """The metrics called `names` without duplicates. Raises ValueError that lists the classifiers, which are fitted on
    train and scored on test, for another metric and for an unknown name.
    """
    of_package = [metric.name for metric in find_arm_metrics(arm_metric_names()) if metric.sees == "classifier"]
    found = []
    for name in dict.fromkeys(names):
        if not is_reference(name) and name not in of_package:
            unknown = name not in arm_metric_names()
            what = f"which is unknown{did_you_mean(name, of_package)}" if unknown else "which is not a classifier"
            raise ValueError(f"metrics: got {name}, {what}; allowed are {', '.join(of_package)}")
        try:
            (metric,) = find_arm_metrics([name])
        except ValueError as error:
            raise ValueError(f"metrics: {str(error).removeprefix('--metrics: ')}") from None
        if metric.sees != "classifier":
            raise ValueError(f"metrics: got {name}, which is not a classifier: a function of (train, test)")
        found.append(metric)
    return found


def _takes_labels(metric: ModuleType) -> bool:
    return metric.SEES != "views" and getattr(metric, "LABELS", True)


def user_pair_metric(reference: str, key: str) -> PairMetric:
    """The user's function f(x_nD, y_nE) -> float, of the rows of a seeded subset of `SUBSET` images.

    Its file, or its class, whose function is `value`, may declare `SUBSET`, `RANGE` and `DIRECTION` as a file of
    coupled/metrics/pair does. Raises ValueError in one line.
    """
    code = import_code(reference, key)
    called = _called(code, "value", 2, PAIR_EXPECTED, key)

    def value(x_nD: Tensor, y_nE: Tensor) -> float:
        found = called(x_nD, y_nE)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise refused(code, key, f"returns {type(found).__name__}", PAIR_EXPECTED)
        return found if isinstance(found, Undefined) else float(found)

    declared = {name: getattr(code.declared, name, usual) for name, usual in DECLARED.items()}
    subset, range_, direction = declared.values()
    return PairMetric(_name(code), range_, direction, frozenset(), "", subset, value)


def user_arm_metric(reference: str, key: str) -> ArmMetric:
    """The user's function f(images) -> float of the rows and labels of a split, or f(train, test) of both.

    Its arguments are `Labelled`. Raises ValueError in one line.
    """
    code = import_code(reference, key)
    names = list(inspect.signature(code.value).parameters) if callable(code.value) else []
    if names not in OF_ONE_ARM:
        raise refused(code, key, f"takes ({', '.join(names)})", ARM_EXPECTED)
    called = _called(code, "values", len(names), ARM_EXPECTED, key)

    def values(*seen: Labelled | int) -> dict[str | Variant, Measured]:
        found = called(*seen[: len(names)])  # without the seed
        if isinstance(found, bool) or not isinstance(found, int | float | Measured):
            raise refused(code, key, f"returns {type(found).__name__}", ARM_EXPECTED)
        return {"value": found if isinstance(found, Measured) else Measured(found)}

    sees = "split" if names == ["images"] else "classifier"
    return ArmMetric(_name(code), sees, (Variant("value"),), (-inf, inf), {}, values, labels=True)


def _called(code: UserCode, name: str, arguments: int, expected: str, key: str) -> Callable[..., Any]:
    """Wrap the metric and check each call: its exceptions, that it changes no rows, and draws no random number."""
    function = getattr(code.value, name, None) if inspect.isclass(code.value) else code.value
    if not callable(function) or len(inspect.signature(function).parameters) != arguments:
        raise refused(code, key, f"is not a function of {arguments} arguments", expected)

    def call(*seen: Any) -> Any:
        tensors = [part for each in seen for part in (each if isinstance(each, tuple) else (each,))]
        changed = watch({str(k): each for k, each in enumerate(tensors)}, values=True)
        drawn = generator_states(torch.device("cpu"))
        with errors_named(code, key, expected):
            found = function(*seen)
        if changed():
            raise refused(code, key, "changes its input in place", expected)
        if generator_states(torch.device("cpu")) != drawn:
            raise refused(code, key, "draws from a global random generator", expected)
        return found.item() if hasattr(found, "item") and getattr(found, "ndim", 1) == 0 else found

    return call


def _name(code: UserCode) -> str:
    """The name in the tables. It has the file's digest, so that rows of a changed file are separate."""
    return f"{code.reference}@{code.source.digest[:8]}"
