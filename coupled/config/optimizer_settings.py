"""The section `optimizer` of the settings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from coupled.config.fields import Above0, LeanSection, NonNegative, Positive, Share, about

# the keys of one optimizer or one schedule alone, with their defaults
OF_NAME: dict[str, dict[str, Any]] = {
    "lars": {"momentum": 0.9},
    "sgd": {"momentum": 0.9},
    "adamw": {"betas": (0.9, 0.999)},  # as in torch
    "rmsprop": {"momentum": 0.0, "alpha": 0.99},  # as in torch
}
OF_SCHEDULE: dict[str, dict[str, Any]] = {
    "step": {"milestones": None, "gamma": 0.1},  # gamma as in torch
    "warmup_stable_decay": {"decay_epochs": None},
}
LONGEST_WARMUP = 10.0  # epochs, unless the settings say it
NEVER_ENDS = ("constant", "step")  # schedules that do not depend on the length of the run
HEAD_KEYS = ("head_lr_multiplier", "head_weight_decay")


class OptimizerSettings(LeanSection):
    """The optimizer of every arm. An arm may change keys: `arms.<name>.optimizer`. The world size never enters the
    learning rate.
    """

    LEAN = ("exclude_1d", "alpha", "milestones", "gamma", "decay_epochs", *HEAD_KEYS)

    name: Annotated[Literal["lars", "sgd", "adamw", "rmsprop"], about("Update rule.")] = "lars"
    base_lr: Annotated[
        Above0, about("Peak learning rate for a batch of 256 images; `lr_scaling` adapts it to others.")
    ] = 0.3
    lr_scaling: Annotated[
        Literal["linear", "sqrt", "fourth_root", "none"],
        about("How the learning rate grows with `batch.size` / 256."),
    ] = "linear"
    momentum: Annotated[
        Share | None,
        about("Momentum of `lars`, `sgd` and `rmsprop`.", default="0.9; 0 for `rmsprop`; `null` for `adamw`"),
    ] = None
    betas: Annotated[
        tuple[Share, Share] | None, about("Betas of `adamw`.", default="[0.9, 0.999] for `adamw`, else `null`")
    ] = None
    alpha: Annotated[
        Share | None,
        about("Decay of the mean of squared gradients of `rmsprop`.", default="0.99 for `rmsprop`, else `null`"),
    ] = None
    weight_decay: Annotated[
        NonNegative, about("Not applied to biases and norm parameters, unless `exclude_1d` is false.")
    ] = 1e-6
    exclude_1d: Annotated[
        bool,
        about(
            "Parameters of one dimension (biases, scales and shifts of norms) get no weight decay and no trust ratio of"
            " `lars`, as in SimCLR. `false`: they are treated as all others, as in the published code of the papers."
        ),
    ] = True
    head_lr_multiplier: Annotated[
        Above0, about("Factor of the learning rate of the heads: predictor, classifier, prototypes.")
    ] = 1.0
    head_weight_decay: Annotated[
        NonNegative | None,
        about("Weight decay of the heads: predictor, classifier, prototypes. `null`: `weight_decay`."),
    ] = None
    warmup_epochs: Annotated[
        NonNegative,
        about("Epochs of linear warm-up; must end before the run does.", "epochs", "min(10, `epochs` / 10)"),
    ]
    schedule: Annotated[
        Literal["cosine", "cosine_per_epoch", "constant", "step", "warmup_stable_decay"],
        about(
            "Learning rate after the warm-up. `cosine_per_epoch`: as in the published code of the papers, one rate for"
            " each epoch, warm-up times cosine. `step`: multiplied by `gamma` at each of the `milestones`."
            " `warmup_stable_decay`: constant, and a linear decay to 0 in the last `decay_epochs`."
        ),
    ] = "cosine"
    milestones: Annotated[
        Annotated[tuple[Positive, ...], Field(min_length=1)] | None,
        about("Completed epochs at which the schedule `step` changes the rate.", "epochs", "required for `step`"),
    ] = None
    gamma: Annotated[
        Above0 | None, about("Factor of the schedule `step` at each milestone.", default="0.1 for `step`, else `null`")
    ] = None
    decay_epochs: Annotated[
        Above0 | None,
        about(
            "Length of the decay of `warmup_stable_decay`.", "epochs", "required for `warmup_stable_decay`, else `null`"
        ),
    ] = None
    clip_grad_norm: Annotated[
        Above0 | None,
        about(
            "Largest norm of each arm's gradient; a larger one is scaled down. `null`: no clipping. Check the value for"
            " objectives with large losses, such as VICReg."
        ),
    ] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        name, schedule = (given.get(key, cls.model_fields[key].default) for key in ("name", "schedule"))
        defaults = {**OF_NAME.get(str(name), {}), **OF_SCHEDULE.get(str(schedule), {})}
        return {**given, **{key: value for key, value in defaults.items() if given.get(key) is None}}

    @model_validator(mode="after")
    def _only_its_own(self) -> "OptimizerSettings":
        for chosen, tables in ((self.name, OF_NAME), (self.schedule, OF_SCHEDULE)):
            own = tables.get(chosen, {})
            for key in sorted({key for keys in tables.values() for key in keys}):
                value = getattr(self, key)
                if key not in own and value is not None:
                    shown = list(value) if isinstance(value, tuple) else value
                    instead = f"; set {' and '.join(own)}" if own else "; remove it"
                    raise ValueError(f"{key}: got {shown} with {chosen}, which has no {key}{instead}")
                if key in own and value is None:
                    raise ValueError(f"{key}: missing; schedule {chosen} needs it, in epochs")
        if self.milestones and list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones: got {list(self.milestones)}; write them in rising order, each once")
        return self

    def of_schedule(self) -> dict[str, Any]:
        """The arguments of `schedule_of` that are settings."""
        keys = ("base_lr", "lr_scaling", "warmup_epochs", "schedule", "milestones", "gamma", "decay_epochs")
        return {key: getattr(self, key) for key in keys}

    def of_update(self) -> dict[str, Any]:
        """The arguments of `build_optimizer` that are settings."""
        keys = ("name", "momentum", "betas", "alpha", "weight_decay", "exclude_1d")
        return {key: getattr(self, key) for key in (*keys, "head_lr_multiplier", "head_weight_decay")}


def with_warmup(given: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """Return the settings `given` with the default warm-up, a tenth of their epochs; `epochs` is the default length."""
    length = given.get("epochs", epochs)
    warmup = min(LONGEST_WARMUP, length / 10) if isinstance(length, int) else LONGEST_WARMUP
    return {**given, "optimizer": {"warmup_epochs": warmup, **given.get("optimizer", {})}}
