"""The section `optimizer` of the settings, and the keys of it that single arms change."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from coupled.config.errors import differences
from coupled.config.fields import Above0, LeanSection, NonNegative, Positive, Share, about, lean_defaults

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
        Above0, about("Factor of the learning rate of the heads: predictor and classifier.")
    ] = 1.0
    head_weight_decay: Annotated[
        NonNegative | None,
        about("Weight decay of the heads: predictor and classifier. `null`: `weight_decay`."),
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


def merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `optimizer` of an arm: the keys of `own`, and for all others those of `shared`.

    With another optimizer or schedule the arm has the defaults of its keys, not the shared values: a momentum for LARS
    is none for RMSProp.
    """
    dropped: set[str] = set()
    for chooser, tables in (("name", OF_NAME), ("schedule", OF_SCHEDULE)):
        if own.get(chooser, shared.get(chooser)) != shared.get(chooser):
            dropped |= {key for keys in tables.values() for key in keys}
    return {**{key: value for key, value in shared.items() if key not in dropped}, **own}


def with_arm_optimizers(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings `given` with the whole section `optimizer` written out for each arm that changes a key.

    The section is removed from an arm where it equals the shared one. Sections with errors are left as they are.
    """
    arms = given.get("arms")
    if not isinstance(arms, dict):
        return dict(given)
    try:
        shared = OptimizerSettings.model_validate(given.get("optimizer"))
    except ValidationError:
        return dict(given)
    filled = {}
    for name, arm in arms.items():
        filled[name] = arm
        own = arm.get("optimizer") if isinstance(arm, dict) else None
        if isinstance(own, dict):
            section = merged(shared.model_dump(), own)
            equal = _valid(section) == shared
            filled[name] = {**arm, "optimizer": None if equal else section}
    return {**given, "arms": filled}


def _valid(section: Mapping[str, Any]) -> OptimizerSettings | None:
    try:
        return OptimizerSettings.model_validate(section)
    except ValidationError:
        return None  # refused later, with the key in the message


def check_heads(settings: Mapping[str, Any], with_heads: Collection[str]) -> None:
    """Raise ValueError for settings of heads where there is no head to use them.

    `settings` are resolved; `with_heads` are the arms that have a predictor or classifier.
    """
    shared = settings["optimizer"]
    for key in HEAD_KEYS:
        if key in shared and not with_heads:
            raise ValueError(f"optimizer.{key}: got {shared[key]}, but no arm has a predictor or classifier; remove it")
        for name, arm in settings["arms"].items():
            own = (arm.get("optimizer") or {}).get(key)
            if own not in (None, shared.get(key)) and name not in with_heads:
                raise ValueError(f"arms.{name}.optimizer.{key}: got {own}, but the arm has no predictor or classifier")


def not_shared(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the settings that each arm does not share with the others, such as "optimizer.base_lr".

    `settings` are resolved, as in run.json. Arms that share all settings are left out.
    """
    found = {}
    for name, arm in settings["arms"].items():
        if own := arm.get("optimizer"):
            shared = settings["optimizer"]
            absent = {key: value for key, value in lean_defaults(OptimizerSettings).items() if key not in shared}
            found[name] = [key for key, _, _ in differences({**shared, **absent}, {**absent, **own}, "optimizer")]
    return found


def not_shared_text(settings: Mapping[str, Any]) -> str:
    """Return a line for figures, such as "not shared: ce optimizer.base_lr"; "" if the arms share all settings."""
    each = [f"{arm} {', '.join(keys)}" for arm, keys in not_shared(settings).items()]
    return f"not shared: {'; '.join(each)}" if each else ""
