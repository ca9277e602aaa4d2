"""The settings of what is watched beside training: trackers."""

from typing import Annotated, Literal

from pydantic import AfterValidator

TrackerName = Literal["tensorboard", "wandb", "mlflow"]


def _once(names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
    return tuple(dict.fromkeys(names))


Trackers = Annotated[tuple[TrackerName, ...], AfterValidator(_once)]
