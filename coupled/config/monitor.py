"""The settings of what is watched beside training: trackers, and measures on clean views."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from coupled.config.by_name import did_you_mean, known
from coupled.config.sections import Positive, Section

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
WEIGHT_GAP = "weight_gap"
OF_ARMS = ("cdnv", "directional_cdnv", "effective_rank", "etf_deviation", "knn", "nccc", "root_cdnv")  # of one value
OF_PAIRS = known("coupled.metrics.pair")
MEASURES = (*OF_PAIRS, WEIGHT_GAP, *OF_ARMS)


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _measures(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in MEASURES:
            raise ValueError(
                f"got '{name}'{did_you_mean(name, MEASURES)}; allowed beside training are {', '.join(MEASURES)}"
            )
    return _once(names)


Trackers = Annotated[tuple[TrackerName, ...], AfterValidator(_once)]


class MonitorSettings(Section):
    """Measures of every `every_epochs`-th epoch, the start included, on clean views of at most `num_images` test
    images; classifiers learn from as many train images.
    """

    every_epochs: Positive = 1
    metrics: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_measures)] = (
        *("cka", "rsa", WEIGHT_GAP, "knn", "nccc"),
    )
    num_images: Annotated[int, Field(strict=True, ge=2, le=10**9)] = 2000


def unpaired(monitor: Mapping[str, Any] | None, arms: Sequence[str]) -> Iterator[str]:
    """A warning of metrics that compare two arms, in a run of one. Raises ValueError if there are no others."""
    pairs = [name for name in monitor["metrics"] if name not in OF_ARMS] if monitor and len(arms) == 1 else []
    if monitor and pairs:
        text = f"monitor.metrics: {', '.join(pairs)} compare two arms, and the run has only '{arms[0]}'"
        if len(pairs) == len(monitor["metrics"]):
            raise ValueError(f"{text}; allowed are {', '.join(OF_ARMS)}")
        yield f"{text}; monitor.csv has no rows of them"
