"""Find objectives and datasets by name, and check and complete their options.

Every dataset takes the options `classes`, the number of classes to draw or a list of class numbers or names, and
`label_noise`. All programs load their images here, so they all use the same ones.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from coupled.config import by_name
from coupled.config.arm_sections import check_used
from coupled.config.augmentation import check_mixed_labels
from coupled.config.class_choice import Classes, check_classes, chosen_classes
from coupled.config.controls import ARM_KEYS, KEYS, TRAINING_KEYS, with_twin_options
from coupled.config.encoder_settings import of_timm
from coupled.config.errors import check_options, without_defaults
from coupled.config.label_noise import LabelNoise, TrainImages, checked_label_noise, with_noise
from coupled.config.user_augmentation import with_step_options
from coupled.config.user_code import find as find_code
from coupled.config.user_code import is_reference
from coupled.config.user_dataset import UserDataset
from coupled.config.user_encoder_options import with_encoder_options
from coupled.config.user_objective import Declared, declared
from coupled.datasets import AnyImageDataset, check_labels, defaults_for
from coupled.objectives import Loss, Needs
from coupled.stream.seeds import permutation, philox

OWN_KEYS = ("name", "image_size", "num_workers")  # of the section `dataset`; its other keys are options of the dataset


class Found(NamedTuple):
    """The loader of a dataset with its options filled in, the classes to use (None: all), and the label noise."""

    load: Callable[..., AnyImageDataset]
    options: dict[str, Any]
    classes: Classes | None
    label_noise: LabelNoise | None


class Objective(NamedTuple):
    """An objective with its options filled in, and its rule for setting weights after a step, if it has one."""

    name: str
    function: Callable[..., Loss]
    options: dict[str, Any]
    needs: Needs
    batch_sums: Callable[..., dict[str, Tensor]] | None = None
    after_step: Callable[..., dict[str, Tensor]] | None = None

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({options})"


def find_objective(
    arm: str, name: str, options: Mapping[str, Any], temperature: float, beside: Sequence[str] = ()
) -> Objective:
    """Return the objective of an arm, with its options checked and filled in.

    Args:
        arm: name of the arm, for messages.
        name: a file of coupled/objectives, "path/to/file.py:function" or "module:function".
        options: options of the objective; missing ones get their defaults.
        temperature: temperature of the run, for an objective that takes one and whose options set none.
        beside: further keys that the message about an unknown option lists.

    Returns:
        The function with its options, and what it needs of the network.

    Raises:
        ValueError: in one line that begins with "arms.<arm>", for an unknown name or an option that is not allowed.

    Example:
        >>> print(find_objective("cl", "dcl", {}, temperature=0.5))
        dcl(temperature=0.5, positive_in_denominator=False, similarity=cosine)
    """
    key = f"arms.{arm}.objective"
    found = declared(find_code(name, key), key) if is_reference(name) else _of_package(name, key)
    function, given = found.function, dict(options)
    if "temperature" in inspect.signature(function).parameters:
        given.setdefault("temperature", temperature)
    checked = check_options(function, given, f"arms.{arm}", beside=beside, package="coupled.objectives")
    if found.check:
        try:
            found.check(**checked)
        except ValueError as error:
            raise ValueError(f"arms.{arm}.{error}") from None
    used = without_defaults(checked, function, found.added)
    return Objective(name, function, used, found.needs(**checked), found.batch_sums, found.after_step)


def _of_package(name: str, key: str) -> Declared:
    """The functions of a file of coupled/objectives. Raises ValueError if the file or a needed function is missing."""
    try:
        module = by_name.find("coupled.objectives", name)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    absent = [f"{each}()" for each in (name, "needs") if not callable(getattr(module, each, None))]
    if absent:
        raise ValueError(f"{key}: {module.__file__} has no {' and no '.join(absent)}")
    check, sums, rule = (getattr(module, each, None) for each in ("check", "batch_sums", "after_step"))
    return Declared(getattr(module, name), module.needs, check, sums, rule, getattr(module, "ADDED", ()))


def load_dataset(section: Mapping[str, Any], split: str, seed: int) -> AnyImageDataset:
    """Load one split of a dataset, restricted to the chosen classes.

    Args:
        section: the resolved section `dataset` of the settings.
        split: "train" or "test".
        seed: seed of the run; it draws the classes, if `classes` is a number, and the split of a folder.

    Returns:
        The images, in memory or as files, with `labels_N`, `class_names`, `mean` and `std`.

    Raises:
        ValueError: for an unknown name or option, or missing images.

    Example:
        >>> images = load_dataset({"name": "digits", "image_size": 8, "classes": [3, 5]}, "test", seed=0)
        >>> images.class_names, len(images.labels_N)
        (('3', '5'), 74)
    """
    load, checked, classes, _ = _dataset(section)
    drawn = {"permute": lambda n: permutation(n, philox(seed, "dataset split"))}
    draws = {key: draw for key, draw in drawn.items() if key in inspect.signature(load).parameters}
    images: AnyImageDataset = load(split, *draws.values(), **checked)
    check_labels(images)
    return images if classes is None else images.only(chosen_classes(images, classes, seed))


def load_train_images(section: Mapping[str, Any], seed: int) -> TrainImages:
    """Load the images of the training steps, and the split train. Arguments and errors as for `load_dataset`."""
    train, found = load_dataset(section, "train", seed), _dataset(section)
    unlabelled = getattr(_find_dataset(section["name"]), "unlabelled", None)
    images = unlabelled(train, **found.options) if unlabelled else None
    if images is None:
        return TrainImages(with_label_noise(section, train, seed), train)
    for key, value in (("classes", found.classes), ("label_noise", found.label_noise)):
        if value is not None:
            raise ValueError(
                f"dataset.{key}: got {value}, but dataset.train_part={found.options['train_part']} trains without"
                " labels; remove one of them"
            )
    return TrainImages(images, train)


def with_label_noise(section: Mapping[str, Any], train: AnyImageDataset, seed: int) -> AnyImageDataset:
    """Return the images of the split train with the labels of the training steps; `train` itself without noise."""
    return with_noise(train, _dataset(section).label_noise, seed)


def with_dataset_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a user with the defaults that depend on the dataset filled in.

    Raises ValueError for an unknown dataset; the settings are checked for all other faults later.
    """
    dataset = settings.get("dataset")
    if not isinstance(dataset, dict) or not isinstance(dataset.get("name"), str):
        return settings
    if dataset.get("image_size") is None:
        dataset = {**dataset, "image_size": _own_size(dataset)}
    size = dataset["image_size"]
    suits = defaults_for(size) if isinstance(size, int) else {}
    given = {section: settings.get(section, {}) for section in suits}
    if isinstance(encoder := given.get("encoder"), dict) and not of_timm(str(encoder.get("name", ""))):
        del given["encoder"]  # only encoders of timm have a stem
    return {
        **settings,
        "dataset": dataset,
        **{key: {**suits[key], **each} for key, each in given.items() if isinstance(each, dict)},
    }


def _own_size(dataset: Mapping[str, Any]) -> int:
    """The usual image size of a dataset; for a folder, the size of its images."""
    if is_reference(dataset["name"]):
        raise ValueError("dataset.image_size: missing; a user-defined dataset needs it: the side of a view in pixels")
    module = _find_dataset(dataset["name"])
    if hasattr(module, "own_size"):
        takes = inspect.signature(module.own_size).parameters
        given = {key: value for key, value in dataset.items() if key in takes}
        own: int = module.own_size(**check_options(module.own_size, given, "dataset"))
        return own
    size: int = module.SIZE
    return size


def with_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return resolved settings with all options of the dataset and of the arms' objectives, defaults included.

    They make run.json complete, and give two spellings of one experiment the same digest. All values are plain JSON.
    Raises ValueError for an unknown name or option.
    """
    section = settings["dataset"]
    load, checked, classes, noise = _dataset(section)
    checked = without_defaults(checked, load, getattr(_find_dataset(section["name"]), "ADDED", ()))
    chosen = {key: value for key, value in (("classes", classes), ("label_noise", noise)) if value is not None}
    tree = {**settings, "arms": {}, "dataset": {**{key: section[key] for key in OWN_KEYS}, **checked, **chosen}}
    tree["encoder"] = with_encoder_options(settings["encoder"])
    if steps := settings["augmentation"].get("steps"):
        tree["augmentation"] = {**settings["augmentation"], "steps": with_step_options(steps)}
    needs: dict[str, Needs] = {}
    for arm, given in with_twin_options(settings["arms"]).items():
        control = {key: given.pop(key) for key in (*KEYS, *TRAINING_KEYS) if key in given}
        options = {key: value for key, value in given.items() if key != "objective"}
        found = find_objective(arm, given["objective"], options, settings["temperature"], ARM_KEYS)
        if "augmentation" in control and steps:  # with all their options, as in the shared section
            control["augmentation"] = {**control["augmentation"], "steps": tree["augmentation"]["steps"]}
        mixes = control.get("augmentation") or settings["augmentation"]
        check_mixed_labels(arm, found.name, found.needs.mixed_labels, mixes)
        needs[arm] = found.needs
        tree["arms"][arm] = {"objective": given["objective"], **found.options, **control}
    check_used(tree, needs)
    filled: dict[str, Any] = json.loads(json.dumps(tree, default=str))  # a path is text in the settings
    return filled


def _find_dataset(name: str) -> Any:
    """The module of a dataset of the package, or a `UserDataset`."""
    if is_reference(name):
        return UserDataset(find_code(name, "dataset.name"))
    try:
        return by_name.find("coupled.datasets", name)
    except ValueError as error:
        raise ValueError(f"dataset.name: {error}") from None


def _dataset(section: Mapping[str, Any]) -> Found:
    """The loader of the dataset, and its options checked and filled in.

    A generated dataset takes `classes` itself: it generates that number, or as many as a list needs.
    """
    module = _find_dataset(section["name"])
    load, signed = module.load, getattr(module, "signed", module.load)  # the function that has the options
    takes = inspect.signature(signed).parameters
    options = {key: value for key, value in section.items() if key not in OWN_KEYS or key in takes}
    also = {key: Any for key in ("classes", "label_noise") if key not in takes}
    noise = checked_label_noise(options.get("label_noise")) if "label_noise" in also else None
    classes = options.get("classes") if "classes" in also or isinstance(options.get("classes"), list) else None
    if classes is not None:
        check_classes(classes)
    if classes is not None and "classes" not in also:
        options["classes"] = 1 + max([1, *(each for each in classes if isinstance(each, int))])
    checked = check_options(signed, options, "dataset", also)
    return Found(load, {key: value for key, value in checked.items() if key not in also}, classes, noise)
