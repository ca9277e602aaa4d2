"""Checks across sections of the settings; each message ends with the change that is needed."""

from typing import TYPE_CHECKING

from coupled.config.arm_sections import VIEWS_OF_ALL

if TYPE_CHECKING:  # schema.py imports this file
    from coupled.config.augmentation import AugmentationSettings
    from coupled.config.optimizer_settings import OptimizerSettings
    from coupled.config.schema import Settings


def check_across(settings: "Settings") -> None:
    """Raise ValueError for values that do not fit together."""
    check_optimizer(settings.epochs, settings.optimizer, "optimizer")
    check_blur(settings.augmentation, settings.dataset.image_size, "augmentation")
    for name, arm in settings.arms.items():
        if arm.optimizer:
            check_optimizer(settings.epochs, arm.optimizer, f"arms.{name}.optimizer")
        if arm.augmentation:
            check_blur(arm.augmentation, settings.dataset.image_size, f"arms.{name}.augmentation")
        for key in VIEWS_OF_ALL if arm.augmentation else ():
            own, shared = (_plain(getattr(section, key)) for section in (arm.augmentation, settings.augmentation))
            if own != shared:
                raise ValueError(
                    f"arms.{name}.augmentation.{key}: got {own}, and augmentation.{key} is {shared}; the arms share the"
                    " number and size of the views and the user-defined steps: set it for all arms"
                )
    if settings.activation_checkpointing and settings.compile:
        raise ValueError(
            "activation_checkpointing: got true with compile: true, and torch.compile plans itself what is computed"
            " again; set one of them to false"
        )
    if settings.batch.micro_batch and settings.compile:
        raise ValueError(
            f"batch.micro_batch: got {settings.batch.micro_batch} with compile: true, which cannot compile an encoder"
            " that sees parts of the batch; set compile=false or batch.micro_batch=null"
        )
    for name in settings.arms if settings.online_probe else ():
        mixed = settings.augmentation_of(name)
        for key in ("mixup_alpha", "cutmix_alpha"):
            if value := getattr(mixed, key):
                raise ValueError(
                    f"online_probe: set, but arm '{name}' has augmentation.{key}: {value}, and a mixed view has two"
                    " labels; remove one of them"
                )
    for name in settings.arms if settings.encoder.weights else ():
        if "init" in settings.arms[name].unshared:
            raise ValueError(
                f"arms.{name}.unshared: got init with encoder.weights, from which all arms start; remove one"
            )
    if settings.parallel.arm_groups > len(settings.arms):
        raise ValueError(
            f"parallel.arm_groups: got {settings.parallel.arm_groups} with {len(settings.arms)} arms; at most one group"
            " per arm"
        )


def _plain(value: object) -> object:
    return [step.model_dump() for step in value] if isinstance(value, tuple) else value


def check_blur(augmentation: "AugmentationSettings", image_size: int | None, section: str) -> None:
    """Raise ValueError for a kernel whose half does not fit into a view, which is mirrored at its border."""
    sides = [side for side in (image_size, augmentation.local_size) if side]
    for key, recipe in (("", augmentation), ("second.", augmentation.second)):
        taps = recipe.blur_taps if recipe else None
        if taps and sides and taps // 2 >= min(sides):
            raise ValueError(
                f"{section}.{key}blur_taps: got {taps} for views of {min(sides)} px; allowed are odd numbers from 3"
                f" to {2 * min(sides) - 1}"
            )


def check_optimizer(epochs: int, optimizer: "OptimizerSettings", key: str) -> None:
    """Raise ValueError for parts of a schedule that do not fit into a run of `epochs`; 0 trains nothing."""
    warmup, milestones, decay = optimizer.warmup_epochs, optimizer.milestones or (), optimizer.decay_epochs
    if epochs and warmup >= epochs:
        raise ValueError(
            f"{key}.warmup_epochs: got {warmup:g} with epochs: {epochs}; warm-up must end before the run"
            f" does: set {key}.warmup_epochs below {epochs}"
        )
    for milestone in milestones:
        if epochs and not warmup <= milestone < epochs:
            raise ValueError(
                f"{key}.milestones: got {milestone} with epochs: {epochs}; give epochs from the end of the warm-up"
                f" ({warmup:g}) to below {epochs}"
            )
    if epochs and decay and warmup + decay > epochs:
        raise ValueError(
            f"{key}.decay_epochs: got {decay:g} with epochs: {epochs}; at most {epochs - warmup:g}, because the decay"
            " begins after the warm-up"
        )
