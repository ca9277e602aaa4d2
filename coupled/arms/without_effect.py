"""Warnings about keys of the settings that have no effect in a run."""

from collections.abc import Iterator, Mapping
from typing import Any

from coupled.config.augmentation import AugmentationSettings
from coupled.config.projector_settings import PROJECTOR
from coupled.config.registry import Objective
from coupled.config.sections import TEMPERATURE

STRENGTHS_OF = {  # for each probability the keys that have no effect where it is 0
    "blur_prob": ("blur_sigma", "blur_taps"),
    "jitter_prob": ("brightness", "contrast", "saturation", "hue"),
    "solarize_prob": ("solarize_threshold",),
    "rotation_prob": ("rotation_degrees",),
    "warp_prob": ("warp_length",),
}


def without_effect(settings: Mapping[str, Any], objectives: Mapping[str, Objective], device: str) -> Iterator[str]:
    """Warn of keys of the resolved `settings` that have no effect in this run."""
    snapshots = settings["snapshots"]
    temperatures = [each.options.get("temperature") for each in objectives.values()]
    projecting = [arm for arm, objective in objectives.items() if objective.needs.projects]
    projected = any(not settings["arms"][arm].get("projector") for arm in projecting)
    no_projector = "every arm that uses a projection has other keys" if projecting else "no arm uses a projection"
    dense, every = snapshots["dense_until_epoch"], snapshots["every_epochs"]
    for key, ignored, why in (
        ("temperature", settings["temperature"] not in (TEMPERATURE, *temperatures), "no arm takes it"),
        *((key, True, why) for key, why in _strengths(settings)),
        ("projector", not projected and settings["projector"] != PROJECTOR, no_projector),
        ("snapshots.dense_until_epoch", dense and every == 1, "snapshots.every_epochs is 1"),
        ("tf32", settings["tf32"] and device != "cuda", f"the device is {device}"),
    ):
        if ignored:
            yield f"{key}: has no effect, because {why}"


def _strengths(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the strengths of the shared recipe that no arm uses, and those that an arm changes but does not use."""
    shared, own = (
        settings["augmentation"],
        {arm: of["augmentation"] for arm, of in settings["arms"].items() if "augmentation" in of},
    )
    unused = {arm: dict(_unused(section, f"arms.{arm}.augmentation")) for arm, section in own.items()}
    for key, why in _unused(shared, "augmentation"):
        if all(key in unused[arm] or _value(own[arm], key) != _value(shared, key) for arm in own):
            yield f"augmentation.{key}", why
    for arm, keys in unused.items():
        for key, why in keys.items():
            if _value(own[arm], key) != _value(shared, key):
                yield f"arms.{arm}.augmentation.{key}", why


def _value(section: Mapping[str, Any], key: str) -> Any:
    inner, _, name = key.rpartition(".")
    return ((section.get(inner) or {}) if inner else section).get(name)


def _unused(augmentation: Mapping[str, Any], section: str) -> Iterator[tuple[str, str]]:
    """Yield keys of the recipes whose operation has probability 0, and why they have no effect."""
    first = AugmentationSettings.model_validate(augmentation)
    second, usual = first.second or first, AugmentationSettings.model_validate({"preset": first.preset})
    for probability, keys in STRENGTHS_OF.items():
        never, never_second = (getattr(recipe, probability) == 0 for recipe in (first, second))
        for key in keys:
            own = getattr(second, key) != getattr(first, key)
            if never and (never_second or own) and getattr(first, key) != getattr(usual, key):
                yield key, f"{section}.{probability} is 0"
            if never_second and own:
                yield f"second.{key}", f"{section}.second.{probability} is 0"
