"""The settings of what is watched beside training: trackers, and measures on clean views."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from coupled.config.by_name import did_you_mean, known
from coupled.config.fields import Positive, Section, about

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
    """Measures beside training, on clean views. `monitor: {}` takes these defaults."""

    every_epochs: Annotated[Positive, about("Interval between two measures; the start is measured too.", "epochs")] = 1
    metrics: Annotated[
        tuple[str, ...],
        Field(min_length=1),
        AfterValidator(_measures),
        about(
            f"Any [pair metric](metrics.md#pair-metrics), `{WEIGHT_GAP}`, and of the arm metrics {', '.join(OF_ARMS)}."
        ),
    ] = ("cka", "rsa", WEIGHT_GAP, "knn", "nccc")
    num_images: Annotated[
        Annotated[int, Field(strict=True, ge=2, le=10**9)],
        about("Most test images that are looked at; classifiers learn from as many train images.", "images"),
    ] = 2000
