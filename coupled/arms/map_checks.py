"""Checks of arms whose objective reads feature maps: the encoder, the images, and the views."""

from collections.abc import Mapping

from torch import nn

from coupled.config.registry import Objective
from coupled.models.feature_maps import feature_map_side
from coupled.objectives import LOCATIONS
from coupled.stream.recipe import Augmentation


def check_locations(objectives: Mapping[str, Objective], recipes: Mapping[str, Augmentation], on_disk: bool) -> None:
    """Raise ValueError for an objective that needs the places of cells in the image where these are not known."""
    for arm, objective in objectives.items():
        if LOCATIONS not in objective.needs.outputs:
            continue
        why = f"'{objective.name}' of arm {arm} matches cells by their places in the image"
        if on_disk:
            raise ValueError(f"dataset.name: {why}, which are known only for images in memory; use such a dataset")
        for _, view in recipes[arm].recipes():
            moved = {"rotation_prob": view.rotation_prob, "warp_prob": view.warp_prob, "policy": view.policy}
            for key, value in moved.items():
                if value not in (0, "none"):
                    allowed = "none" if key == "policy" else 0
                    raise ValueError(f"augmentation.{key}: got {value}, but {why}; allowed is {allowed}")
        if recipes[arm].steps:
            raise ValueError(f"augmentation.steps: {why}, and a step of your own may move pixels; remove it")


def check_encoder(arm: str, objective: Objective, encoder: nn.Module, image_size: int, micro_batch: int | None) -> None:
    """Raise ValueError unless the encoder gives the feature map that the objective of `arm` needs, if it needs one."""
    if not objective.needs.maps:
        return
    what = f"'{objective.name}' of arm {arm}"
    if micro_batch:
        raise ValueError(f"batch.micro_batch: got {micro_batch}, but {what} reads feature maps; set it to null")
    try:
        side = feature_map_side(encoder, image_size)
    except ValueError as error:
        raise ValueError(f"arms.{arm}.objective: '{objective.name}': {error}") from None
    for option, cells in objective.needs.least_cells.items():
        if cells > side**2:
            raise ValueError(
                f"arms.{arm}.{option}: got {cells}, but the feature map has {side} x {side} cells at {image_size} px;"
                f" allowed is 1 to {side**2}, or use a larger dataset.image_size"
            )
