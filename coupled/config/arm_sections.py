"""Sections that single arms change: `arms.<name>.optimizer`, `.projector` and `.augmentation`.

An arm names only the keys that differ. Its section is written out whole, so run.json says what the arm is trained with,
and the differing keys are named as "not shared".
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from coupled.config.augmentation import AugmentationSettings
from coupled.config.errors import differences
from coupled.config.optimizer_settings import HEAD_KEYS, OF_NAME, OF_SCHEDULE, OptimizerSettings
from coupled.config.projector_settings import ProjectorSettings
from coupled.config.recipe_settings import PRESETS
from coupled.objectives import Needs

Tree = dict[str, Any]
VIEWS_OF_ALL = ("views", "local_views", "local_size", "steps")  # of `augmentation`: what no arm changes


def merged_optimizer(shared: Mapping[str, Any], own: Mapping[str, Any]) -> Tree:
    """Return the section `optimizer` of an arm: the keys of `own`, and for all others those of `shared`.

    With another optimizer or schedule the arm has the defaults of its keys, not the shared values: a momentum for LARS
    is none for RMSProp.
    """
    dropped: set[str] = set()
    for chooser, tables in (("name", OF_NAME), ("schedule", OF_SCHEDULE)):
        if own.get(chooser, shared.get(chooser)) != shared.get(chooser):
            dropped |= {key for keys in tables.values() for key in keys}
    return _merged(shared, own, dropped)


def merged_projector(shared: Mapping[str, Any], own: Mapping[str, Any]) -> Tree:
    """Return the section `projector` of an arm; a shared key that contradicts one of `own` has its default."""
    dropped: set[str] = set()
    if own.get("hidden_dims") is not None:
        dropped |= {"hidden_dim", "num_layers"}
    if {"hidden_dim", "num_layers"} & {*own}:
        dropped |= {"hidden_dims"}
    if own.get("num_layers") == 1 or own.get("hidden_dims") in ((), []):  # no hidden layer
        dropped |= {"hidden_dim", "norm", *(["bias"] if shared.get("bias") == "hidden" else [])}
    if own.get("last_norm") is False:
        dropped |= {"last_norm_scale"}
    return _merged(shared, own, dropped)


def merged_augmentation(shared: Mapping[str, Any], own: Mapping[str, Any]) -> Tree:
    """Return the section `augmentation` of an arm. With another preset it has the strengths of this preset, and with
    another policy the default options of policies; of `second` only the given keys differ.
    """
    dropped: set[str] = set()
    if own.get("preset", shared.get("preset")) != shared.get("preset"):
        dropped |= {key for strengths in PRESETS.values() for key in strengths}
    if own.get("policy", shared.get("policy")) != shared.get("policy"):
        dropped |= {"policy_num_ops", "policy_magnitude"}
    whole = _merged(shared, own, dropped)
    first, second = shared.get("second"), own.get("second")
    return {**whole, "second": {**first, **second}} if isinstance(first, dict) and isinstance(second, dict) else whole


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any], dropped: set[str]) -> Tree:
    return {**{key: value for key, value in shared.items() if key not in dropped}, **own}


class ArmSection(NamedTuple):
    """A section that arms may change: its class, and the function that merges the shared keys with those of an arm."""

    model: type[BaseModel]
    merged: Callable[[Mapping[str, Any], Mapping[str, Any]], Tree]


SECTIONS = {
    "optimizer": ArmSection(OptimizerSettings, merged_optimizer),
    "projector": ArmSection(ProjectorSettings, merged_projector),
    "augmentation": ArmSection(AugmentationSettings, merged_augmentation),
}


def with_arm_sections(given: Mapping[str, Any]) -> Tree:
    """Return the settings `given` with each section written out whole for every arm that changes a key of it.

    The section is removed from an arm where it equals the shared one, apart from the name of a preset, whose strengths
    are written out. Sections with errors are left as they are.
    """
    if not isinstance(arms := given.get("arms"), dict):
        return dict(given)
    filled = dict(arms)
    for key, (model, merged) in SECTIONS.items():
        if (shared := _valid(model, given.get(key, {}))) is None:
            continue
        for name, arm in filled.items():
            own = arm.get(key) if isinstance(arm, dict) else None
            if isinstance(own, dict):
                section = merged(shared, own)
                section = _valid(model, section) or section  # with an error, it is refused later with its key
                filled[name] = {**arm, key: None if _with_preset_of(shared, section, model) == shared else section}
    return {**given, "arms": filled}


def without_own_presets(settings: Tree) -> Tree:
    """Return resolved settings in which the augmentation of every arm names the shared preset, for their digest.

    The strengths of a preset are written out, so its name has no effect.
    """
    key = "augmentation"
    arms = {
        name: {**arm, key: _with_preset_of(settings[key], own, AugmentationSettings)} if (own := arm.get(key)) else arm
        for name, arm in settings["arms"].items()
    }
    return spelled_out({**settings, "arms": arms})


def _with_preset_of(shared: Tree, section: Tree, model: type[BaseModel]) -> Tree | None:
    """Return the section as it is written with the preset of the shared one; None if it has an error."""
    return _valid(model, {**section, "preset": shared["preset"]}) if "preset" in section else section


def _valid(model: type[BaseModel], section: Any) -> Tree | None:
    try:
        return model.model_validate(section).model_dump()
    except ValidationError:
        return None


def spelled_out(settings: Tree) -> Tree:
    """Return the settings, in which sections omit keys with their default, with those keys that an arm must say.

    These are the keys that the shared section says: without them the arm would take the shared value when the settings
    are read again.
    """
    arms = {name: dict(arm) for name, arm in settings["arms"].items()}
    for key, (model, _) in SECTIONS.items():
        shared = settings[key]
        for arm in arms.values():
            if own := arm.get(key):
                absent = {each: model.model_fields[each].default for each in shared if each not in own}
                arm[key] = {**own, **absent}
                if (second := own.get("second")) and shared.get("second"):  # what it omits is as in the first view
                    first = {each: own.get(each, model.model_fields[each].default) for each in shared["second"]}
                    arm[key]["second"] = {**first, **second}
    return {**settings, "arms": arms}


def check_used(settings: Mapping[str, Any], needs: Mapping[str, Needs]) -> None:
    """Raise ValueError for settings of heads, projector or target network that no objective, or not that of the arm,
    uses, and for label noise that is set twice. `settings` are resolved; `needs` are those of each arm's objective.
    """
    shared = settings["optimizer"]
    for key in HEAD_KEYS:
        if key in shared and not any(each.heads for each in needs.values()):
            raise ValueError(f"optimizer.{key}: got {shared[key]}, but no arm has a predictor or classifier; remove it")
    for name, arm in settings["arms"].items():
        objective = f"'{arm['objective']}'"
        for key in HEAD_KEYS if not needs[name].heads else ():
            if (own := (arm.get("optimizer") or {}).get(key)) not in (None, shared.get(key)):
                raise ValueError(f"arms.{name}.optimizer.{key}: got {own}, but the arm has no predictor or classifier")
        if arm.get("projector") and not needs[name].projects:
            keys = ", ".join(key for key in not_shared(settings)[name] if key.startswith("projector."))
            raise ValueError(f"arms.{name}.projector: got {keys}, but {objective} reads no projection; remove it")
        if needs[name].label_noise and (noise := settings["dataset"].get("label_noise")):
            raise ValueError(
                f"arms.{name}.label_noise: got {needs[name].label_noise}, but dataset.label_noise={noise} already"
                " replaces labels of all arms; remove one of them"
            )
        if arm.get("target_schedule") and needs[name].target_decay is None:
            raise ValueError(
                f"arms.{name}.target_schedule: got {arm['target_schedule']} with {objective}, which has no target"
                " network; remove it"
            )


def not_shared(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the settings that each arm does not share with the others, such as "optimizer.base_lr".

    `settings` are resolved, as in run.json. Arms that share all settings are left out.
    """
    found: dict[str, list[str]] = {}
    for name, arm in settings["arms"].items():
        for key, (model, _) in SECTIONS.items():
            if own := arm.get(key):
                absent = {each: field.default for each, field in model.model_fields.items() if not field.is_required()}
                changed = differences({**absent, **settings[key]}, {**absent, **own}, key)
                found.setdefault(name, []).extend(each for each, _, _ in changed)
    return found


def not_shared_text(settings: Mapping[str, Any]) -> str:
    """Return a line for figures, such as "not shared: ce optimizer.base_lr"; "" if the arms share all settings."""
    each = [f"{arm} {', '.join(keys)}" for arm, keys in not_shared(settings).items()]
    return f"not shared: {'; '.join(each)}" if each else ""
