"""The settings of trackers, and of metrics that are computed during training."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from coupled.config.by_name import did_you_mean, known
from coupled.config.fields import Above0, NonNegative, Positive, Section, Share, about
from coupled.config.user_code import FORM, find, import_code, is_reference, of_callable

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
WEIGHT_GAP = "weight_gap"
OF_ARMS = (
    "cdnv",
    "directional_cdnv",
    "effective_rank",
    "etf_deviation",
    "knn",
    "nccc",
    "root_cdnv",
)  # arm metrics with one value
OF_ONE_ARM = (["images"], ["train", "test"])  # arguments of a user-defined arm metric
KEY = "monitor.metrics"
OF_PAIRS = known("coupled.metrics.pair")
MEASURES = (*OF_PAIRS, WEIGHT_GAP, *OF_ARMS)


def with_measures(monitor: Mapping[str, Any]) -> dict[str, Any]:
    """Import every user-defined metric, a callable or a reference, and write it `reference@digest` in the section.

    After a change of the file, its rows have another name in monitor.csv. Raises ValueError as `import_code` does.
    """

    def spelled(named: Any) -> Any:
        if callable(named):
            code = of_callable(named, KEY)
        elif isinstance(named, str) and is_reference(named):
            code = import_code(reference_of(named), KEY)
        else:
            return named
        return f"{code.reference}@{code.source.digest[:8]}"

    metrics = monitor.get("metrics")
    return {**monitor, "metrics": [*map(spelled, metrics)]} if isinstance(metrics, list | tuple) else dict(monitor)


def reference_of(name: str) -> str:
    """Return the name of a metric; of a user-defined one the reference without the digest."""
    if not is_reference(name):
        return name
    file, _, function = name.rpartition(":")
    return f"{file}:{function.partition('@')[0]}"


def compares_arms(name: str) -> bool:
    """Whether a metric compares two arms. The names of its arguments decide it for a user-defined one."""
    if not is_reference(name):
        return name not in OF_ARMS
    value = find(reference_of(name), KEY).value
    return not callable(value) or [*inspect.signature(value).parameters] not in OF_ONE_ARM


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _measures(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in MEASURES and not is_reference(name):
            raise ValueError(
                f"got '{name}'; allowed during training are {', '.join(MEASURES)}, {FORM}{did_you_mean(name, MEASURES)}"
            )
    return _once(names)


Trackers = Annotated[tuple[TrackerName, ...], AfterValidator(_once)]


class MonitorSettings(Section):
    """Metrics during training, on images without augmentation. `monitor: {}` uses these defaults."""

    every_epochs: Annotated[
        Positive, about("Interval between two measurements; epoch 0 is measured too.", "epochs")
    ] = 1
    metrics: Annotated[
        tuple[str, ...],
        Field(min_length=1),
        AfterValidator(_measures),
        about(
            f"Any [pair metric](metrics.md#pair-metrics), `{WEIGHT_GAP}`, and of the arm metrics {', '.join(OF_ARMS)};"
            " or [your own](../your_own.md)."
        ),
    ] = ("cka", "rsa", WEIGHT_GAP, "knn", "nccc")
    num_images: Annotated[
        Annotated[int, Field(strict=True, ge=2, le=10**9)],
        about("Most test images that are measured; classifiers are fitted to as many train images.", "images"),
    ] = 2000


class OnlineProbeSettings(Section):
    """A linear classifier of each arm's embeddings, trained by SGD on the views and labels of every batch beside the
    arm, which it does not change. Its accuracy is in steps.csv; with a `monitor`, that on test images in monitor.csv.
    `online_probe: {}` uses these defaults.
    """

    base_lr: Annotated[Above0, about("Largest learning rate; it follows the schedule of the arm.")] = 0.1
    momentum: Annotated[Share, about("Momentum of SGD.")] = 0.9
    weight_decay: Annotated[NonNegative, about("Weight decay; not applied to the biases.")] = 0.0


def unpaired(monitor: Mapping[str, Any] | None, arms: Sequence[str]) -> Iterator[str]:
    """Yield a warning for metrics that compare two arms, in a run of one. Raises ValueError if there are no others."""
    pairs = [name for name in monitor["metrics"] if compares_arms(name)] if monitor and len(arms) == 1 else []
    if monitor and pairs:
        text = f"monitor.metrics: {', '.join(pairs)} compare two arms, and the run has only '{arms[0]}'"
        if len(pairs) == len(monitor["metrics"]):
            raise ValueError(f"{text}; allowed are {', '.join(OF_ARMS)}")
        yield f"{text}; monitor.csv has no rows of them"
