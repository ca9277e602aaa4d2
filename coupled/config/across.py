"""Checks across sections of the settings; each message ends with the change that is needed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # schema.py imports this file
    from coupled.config.schema import Settings


def check_across(settings: "Settings") -> None:
    """Raise ValueError for values that do not fit together."""
    warmup = settings.optimizer.warmup_epochs
    if settings.epochs and warmup >= settings.epochs:
        raise ValueError(
            f"optimizer.warmup_epochs: got {warmup:g} with epochs: {settings.epochs}; warm-up must end before the run"
            f" does: set optimizer.warmup_epochs below {settings.epochs}"
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
