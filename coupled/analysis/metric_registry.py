"""The pair and the arm metrics there are, found by the name of their file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from coupled.config.by_name import find, known
from coupled.metrics import arm, pair
from coupled.metrics.arm import Measured, Variant


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
    values: Callable[..., dict[str | Variant, Measured]]
    labels: bool  # whether it needs them

    def measured(self, *seen: object) -> dict[Variant, Measured]:
        """Its values of what it sees."""
        return {Variant.of(detail): value for detail, value in self.values(*seen).items()}


def pair_metric_names() -> tuple[str, ...]:
    """The pair metrics there are, sorted."""
    return known(pair.__name__)


def arm_metric_names() -> tuple[str, ...]:
    """The arm metrics there are, sorted."""
    return known(arm.__name__)


def find_pair_metrics(names: Iterable[str]) -> list[PairMetric]:
    """The metrics called `names`. Raises ValueError that lists the known ones for a name without a file."""
    modules = {name: find(pair.__name__, name) for name in names}
    return [
        PairMetric(
            name=name,
            range=module.RANGE,
            direction=module.DIRECTION,
            invariances=frozenset(module.INVARIANCES),
            transform=getattr(module, "TRANSFORM", ""),
            subset=getattr(module, "SUBSET", None),
            value=module.value,
        )
        for name, module in modules.items()
    ]


def find_arm_metrics(names: Iterable[str]) -> list[ArmMetric]:
    """The metrics called `names`. Raises ValueError that lists the known ones for a name without a file."""
    modules = {name: find(arm.__name__, name) for name in names}
    return [
        ArmMetric(
            name,
            m.SEES,
            tuple(map(Variant.of, m.DETAILS)),
            m.RANGE,
            m.values,
            m.SEES != "views" and getattr(m, "LABELS", True),
        )
        for name, m in modules.items()
    ]
