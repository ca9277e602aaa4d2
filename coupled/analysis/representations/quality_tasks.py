"""The metrics that quality.py calls for an arm: checks of the choice, and the classifier of an arm that has one.

Shape letters: N images, D width, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from coupled.analysis.representations.layers import OUTPUTS
from coupled.analysis.run import Run
from coupled.analysis.selection import check_labelled, is_unlabelled, listed
from coupled.config.controls import KEYS, TRAINING_KEYS, with_twin_options
from coupled.config.metric_registry import ArmMetric, arm_metric_names, find_arm_metrics
from coupled.config.registry import find_objective
from coupled.config.schema import Settings
from coupled.metrics.arm import Labelled, Measured, Variant
from coupled.metrics.undefined import Undefined
from coupled.monitoring.terminal import say
from coupled.objectives import Head, Needs
from coupled.storage.run_description import imported_epochs
from coupled.storage.snapshots import BadSnapshotError

LOGITS = "logits"  # the module of the rows of an arm's classifier


class Task(NamedTuple):
    """One call of a metric: on `split`, at `layer`."""

    split: str
    layer: str
    metric: ArmMetric


class Classifier(NamedTuple):
    """The head of an arm that computes its logits, and the layer that is its input.

    With `cosine_scale` the logits are this factor times the cosines of the layer and the rows of the head, without the
    margin of the training; else the head is linear with a bias.
    """

    head: str
    layer: str
    cosine_scale: float | None = None

    def logits(self, of_layers: Mapping[str, Labelled], tensors: Mapping[str, Tensor]) -> Labelled:
        """Return the logits [N, C] of images from their representations by layer and the tensors of the arm.

        Raises BadSnapshotError if the tensors of the head are missing.
        """
        rows_ND, labels_N = of_layers[self.layer]
        names = [f"{self.head}.{each}" for each in ("weight", "bias")[: 2 if self.cosine_scale is None else 1]]
        for name in names:
            if name not in tensors:
                raise BadSnapshotError(f"the snapshot has no tensor '{name}', which the classifier of the arm needs")
        weight_CD, *bias_C = (tensors[name] for name in names)
        if self.cosine_scale is not None:
            rows_ND, weight_CD = functional.normalize(rows_ND, dim=-1), functional.normalize(weight_CD, dim=-1)
        return Labelled(functional.linear(rows_ND, weight_CD, *bias_C) * (self.cosine_scale or 1), labels_N)


def needs_of_arms(settings: Settings) -> dict[str, Needs]:
    """Return what the objective of each arm needs of its network."""
    needs = {}
    for arm, given in with_twin_options(settings.resolved()["arms"]).items():
        options = {key: value for key, value in given.items() if key not in ("objective", *KEYS, *TRAINING_KEYS)}
        needs[arm] = find_objective(arm, given["objective"], options, settings.temperature).needs
    return needs


def classifier_of(run: Run, arm: str) -> Classifier | None:
    """Return the classifier of an arm, if it has one on the embedding or the projection.

    Imported snapshots are taken to have none.
    """
    return None if imported_epochs(run.description) else classifier_among(needs_of_arms(run.settings)[arm].heads)


def classifier_among(heads: Mapping[str, Head]) -> Classifier | None:
    """Return the head that computes logits from the embedding or the projection, if there is one."""
    layers = {output: layer for layer, output in OUTPUTS.items()}
    for name, head in heads.items():
        if head.output == LOGITS and head.per_class and head.input in layers:
            return Classifier(name, layers[head.input], head.logit_scale if head.kind == "cosine" else None)
    return None


def with_classifiers(
    metrics: Sequence[ArmMetric], classifiers: Mapping[str, Classifier | None], named: bool
) -> list[ArmMetric]:
    """Return the metrics, without those of a classifier if no arm has one.

    Raises ValueError if such metrics were requested by name; `classifiers` is empty for images of another dataset. If
    only some arms have a classifier, the others are printed.
    """
    of_logits = [metric.name for metric in metrics if metric.sees == "logits"]
    names = ", ".join(of_logits)
    if not of_logits or any(classifiers.values()):
        lacking = [arm for arm, classifier in classifiers.items() if classifier is None]
        if named and of_logits and lacking:
            say(f"{names}: no rows for arms without a classifier of their own: {', '.join(lacking)}")
        return list(metrics)
    if named and classifiers:
        raise ValueError(f"metrics: got {names}; none of the arms {', '.join(classifiers)} has a classifier of its own")
    if named:
        raise ValueError(f"metrics: got {names} with --dataset; an arm's own classifier knows the run's classes only")
    return [metric for metric in metrics if metric.sees != "logits"]


def check_dataset(dataset: str | None, dataset_root: Path | None, accept_changed_images: bool) -> None:
    """Raise ValueError for options that do not fit together."""
    if dataset is None and dataset_root is not None:
        raise ValueError("--dataset-root: needs --dataset with the name of a dataset")
    if dataset is not None and accept_changed_images:
        raise ValueError("--accept-changed-images: not used with --dataset, whose images are not the run's; drop it")


def print_undefined_reasons(where: str, values: Mapping[Variant, Measured]) -> None:
    """Print the undefined values and their reasons."""
    for variant, measured in values.items():
        if isinstance(measured.value, Undefined):
            say(f"{where} {variant}: no value: {measured.value.reason}")


def without_labels(run: Run, metrics: Sequence[ArmMetric], named: bool) -> Sequence[ArmMetric]:
    """Return the metrics that the dataset of the run allows. Without labels those that need labels are left out, with a
    message. Raises ValueError if such metrics were requested by name.
    """
    labelled = [each.name for each in metrics if each.labels]
    if not is_unlabelled(run) or not labelled:
        return metrics
    if named:
        check_labelled(run, ", ".join(labelled))
    say(f"the dataset of this run has no labels; metrics that need labels are left out: {', '.join(labelled)}")
    return [each for each in metrics if not each.labels]


def with_shots(metrics: Sequence[ArmMetric], shots: Sequence[int] | int | None) -> list[ArmMetric]:
    """Return the metrics; those of few shots with these numbers of train images per class.

    Raises ValueError if no metric has shots.
    """
    if shots is None:
        return list(metrics)
    chosen = tuple(dict.fromkeys([shots] if isinstance(shots, int) else shots))
    if not chosen or min(chosen) < 1:
        raise ValueError(f"shots: got {' '.join(map(str, chosen)) or 'none'}; whole numbers of 1 or more are allowed")
    changed = [_with_shots(metric, chosen) for metric in metrics]
    if all(one is other for one, other in zip(metrics, changed, strict=True)):
        raise ValueError("shots: none of the metrics has shots; add few_shot or few_shot_two_way to --metrics")
    return changed


def _with_shots(metric: ArmMetric, shots: tuple[int, ...]) -> ArmMetric:
    if not any(variant.shots for variant in metric.variants):
        return metric
    classifiers = dict.fromkeys(variant.name for variant in metric.variants)
    variants = tuple(Variant(name, shots=m) for m in shots for name in classifiers)
    return replace(metric, variants=variants, values=partial(metric.values, shots=shots))


def are_named(names: Sequence[str] | str | None) -> bool:
    """Return whether the user has named metrics; without it, those that do not apply are left out."""
    return names is not None and tuple(listed(names)) != arm_metric_names()


def check_metrics(names: Sequence[str] | str | None, splits: Sequence[str]) -> list[ArmMetric]:
    """Return the metrics called `names`, or all. Raises ValueError for an unknown one or one that needs test."""
    try:
        metrics = find_arm_metrics(dict.fromkeys(arm_metric_names() if names is None else listed(names)))
    except ValueError as error:
        raise ValueError(f"metrics: {str(error).removeprefix('--metrics: ')}") from None
    of_test = [m.name for m in metrics if m.sees == "classifier" and not {*splits} & {*m.splits}]
    if of_test and are_named(names):
        raise ValueError(f"split: got {' '.join(splits)}; {' and '.join(of_test)} can only be measured on test")
    return metrics


def every_task(
    metrics: Sequence[ArmMetric], splits: Sequence[str], layers: Sequence[str], on_train: bool = False
) -> list[Task]:
    """Return the tasks for one arm at one epoch.

    A classifier fitted on train is scored on test, and with `on_train` also on train if its metric allows it. A metric
    of logits has one task for each split.
    """
    return [
        Task(split, layer, metric)
        for split in dict.fromkeys(splits)
        for layer in dict.fromkeys([*layers, LOGITS])
        for metric in metrics
        if metric.sees != "classifier" or split in (metric.splits if on_train else ("test",))
        if (metric.sees == "logits") == (layer == LOGITS)
    ]
