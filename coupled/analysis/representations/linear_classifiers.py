"""Linear classifiers trained by an optimizer on augmented views, with the networks of the arms frozen.

All arms see the same views in the same order: one augmented view of each train image per epoch, drawn by the seed of
the run from streams that no training uses. The views are computed once for all classifiers; no classifier influences
another.

Shape letters: B images of a batch, K batches of G = B images, N chosen images, D width of a layer, C classes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from coupled.analysis.driver import tracked
from coupled.analysis.representations.embeddings import Sample
from coupled.analysis.representations.layers import OUTPUTS
from coupled.config.across import check_blur, check_optimizer
from coupled.config.arm_sections import VIEWS_OF_ALL, merged_augmentation, merged_optimizer
from coupled.config.augmentation import LOCAL, AugmentationSettings
from coupled.config.errors import one_line
from coupled.config.optimizer_settings import HEAD_KEYS, OptimizerSettings
from coupled.config.schema import Settings
from coupled.models.network import Network
from coupled.models.optimizer import build_optimizer, set_learning_rate
from coupled.models.schedules import schedule_of
from coupled.stream.batches import batches
from coupled.stream.recipe import Augmentation, Recipe
from coupled.stream.seeds import permutation, philox, torch_rng
from coupled.stream.view_plan import view_plan

STREAM = "analysis/linear_evaluation"
USUAL = {  # of HobbitLong/SupContrast, main_linear.py
    "name": "sgd",
    "lr_scaling": "none",
    "momentum": 0.9,
    "weight_decay": 0.0,
    "exclude_1d": False,
    "warmup_epochs": 0,
    "clip_grad_norm": None,
}
MILESTONES = (0.6, 0.75, 0.9)  # shares of the epochs at which the rate is multiplied by 0.2
NOT_OF_CLASSIFIERS = ("base_lr", "clip_grad_norm", *HEAD_KEYS)  # keys of `optimizer`
NOT_OF_VIEWS = (*dict.fromkeys((*VIEWS_OF_ALL, *LOCAL)), "second", "mixup_alpha", "cutmix_alpha")  # of `augmentation`


@dataclass(frozen=True)
class Protocol:
    """How the classifiers are trained; `text` names everything but the optimizer and the rate, for the tables."""

    optimizer: OptimizerSettings
    augmentation: Augmentation
    epochs: int
    batch_size: int
    text: str


class Trained(NamedTuple):
    """What a classifier is trained for: an arm, a layer and a learning rate."""

    arm: str
    layer: str
    lr: float


def protocol_of(
    settings: Settings, optimizer: Mapping[str, Any], augmentation: Mapping[str, Any], epochs: int, batch_size: int
) -> Protocol:
    """Return the protocol with changed keys of the sections `optimizer` and `augmentation`.

    The augmentation is that of the run, with one view and without MixUp and CutMix. Raises ValueError in one line.
    """
    _refuse("optimizer", optimizer, NOT_OF_CLASSIFIERS, OptimizerSettings)
    _refuse("augmentation", augmentation, NOT_OF_VIEWS, AugmentationSettings)
    milestones = [each for each in dict.fromkeys(round(share * epochs) for share in MILESTONES) if 0 < each < epochs]
    stepped = {"schedule": "step", "gamma": 0.2, "milestones": milestones} if milestones else {"schedule": "constant"}
    chosen = _checked(OptimizerSettings, merged_optimizer({**USUAL, **stepped}, optimizer), "optimizer")
    assert isinstance(chosen, OptimizerSettings)
    check_optimizer(epochs, chosen, "optimizer")
    shared = settings.augmentation.model_dump()
    recipe = _checked(AugmentationSettings, merged_augmentation(shared, augmentation), "augmentation")
    assert isinstance(recipe, AugmentationSettings)
    check_blur(recipe, settings.image_size, "augmentation")
    of_run, of_classifier = (_one_view(each.plain()) for each in (settings.augmentation, recipe))
    said = {"epochs": epochs, "batch_size": batch_size}
    said |= {key: value for key, value in chosen.model_dump(mode="json").items() if value is not None}
    for key in ("name", *NOT_OF_CLASSIFIERS):
        said.pop(key, None)
    for field in fields(Recipe):
        if (value := getattr(of_classifier, field.name)) != getattr(of_run, field.name):
            said[f"augmentation.{field.name}"] = value
    return Protocol(chosen, of_classifier, epochs, batch_size, " ".join(map(_spelled, said, said.values())))


def _spelled(key: str, value: Any) -> str:
    return f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"


def _refuse(section: str, changed: Mapping[str, Any], without: Sequence[str], model: type[Any]) -> None:
    """Raise ValueError for a key of the section that is not of the classifiers."""
    for key in changed:
        if key in without:
            allowed = ", ".join(sorted(each for each in model.model_fields if each not in without))
            instead = "; the learning rate is --lr" if key == "base_lr" else ""
            raise ValueError(f"{section}: got {key}{instead}; allowed are {allowed}")


def _checked(model: type[OptimizerSettings | AugmentationSettings], section: Any, name: str) -> Any:
    try:
        return model.model_validate(section)
    except ValidationError as error:
        raise ValueError(f"{name}.{one_line(error, model)}") from None


def _one_view(augmentation: Augmentation) -> Augmentation:
    return replace(augmentation.unmixed(), views=1, second=None, local_views=0)


def train_classifiers(
    networks: Mapping[str, Network], sample: Sample, wanted: Sequence[Trained], protocol: Protocol, settings: Settings
) -> dict[Trained, nn.Linear]:
    """Return the trained classifiers, on the device of the networks.

    The networks are in evaluation mode and get no gradient. The start of a classifier is torch's `nn.Linear`, the same
    for equal widths. An incomplete last batch of an epoch is dropped.
    """
    steps = len(sample.chosen_N) // protocol.batch_size
    shared: dict[str, Any] = {"batch_size": protocol.batch_size, "steps_per_epoch": steps, "epochs": protocol.epochs}
    options = protocol.optimizer.of_schedule()
    rates = {lr: schedule_of(**options | {"base_lr": lr}, **shared) for lr in dict.fromkeys(each.lr for each in wanted)}
    classifiers: dict[Trained, nn.Linear] = {}
    optimizers: dict[Trained, torch.optim.Optimizer] = {}
    step = 0
    for epoch in tracked(range(1, protocol.epochs + 1), "epochs of the classifiers"):
        for views_1B3SS, labels_B in _epoch(sample, protocol, settings, epoch, next(iter(networks.values()))):
            step += 1
            rows = _rows(networks, views_1B3SS)
            for each in wanted:
                rows_BD = rows[each.arm, each.layer]
                if each not in classifiers:
                    classes = len(sample.images.class_names)
                    classifiers[each] = linear(rows_BD.shape[1], classes, settings.seed).to(rows_BD.device)
                    update = protocol.optimizer.of_update()
                    optimizers[each] = build_optimizer(classifiers[each].parameters(), **update)
                optimizers[each].zero_grad()
                cross_entropy(classifiers[each](rows_BD), labels_B).backward()
                set_learning_rate(optimizers[each], rates[each.lr](step))
                optimizers[each].step()
    return classifiers


def linear(width: int, classes: int, seed: int) -> nn.Linear:
    """Return the classifier before training, drawn from its seed stream."""
    with torch_rng(seed, STREAM):
        return nn.Linear(width, classes)


def _epoch(sample: Sample, protocol: Protocol, settings: Settings, epoch: int, network: Network) -> Any:
    """Yield the views [1, B, 3, S, S] and the labels [B] of each batch of an epoch."""
    images, seed = sample.images, settings.seed
    steps = len(sample.chosen_N) // protocol.batch_size
    place_N = permutation(len(sample.chosen_N), philox(seed, f"{STREAM} order", epoch))
    order_KG = sample.chosen_N.numpy()[place_N[: steps * protocol.batch_size]].reshape(steps, protocol.batch_size)
    plan = view_plan(seed, epoch, len(images), protocol.augmentation, f"{STREAM} views")
    place: dict[str, Any] = {"size": settings.image_size, "device": next(network.parameters()).device}
    for batch in batches(images, order_KG, plan, epoch=epoch, workers=settings.dataset.num_workers, **place):
        yield batch.views_VB3SS, batch.labels_B


@torch.no_grad()
def _rows(networks: Mapping[str, Network], views_1B3SS: Tensor) -> dict[tuple[str, str], Tensor]:
    """Return the representations [B, D] of views by arm and layer."""
    found = {arm: network(views_1B3SS) for arm, network in networks.items()}
    return {
        (arm, layer): outputs[name][0]
        for arm, outputs in found.items()
        for layer, name in OUTPUTS.items()
        if name in outputs
    }
