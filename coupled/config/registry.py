"""What the settings choose by name: objectives and image sets, their options checked and filled in.

Every image set takes the option `classes`, the classes to use: a number to draw so many, or a list of them by number or
name. Whatever trains or measures loads its images here, so that all see the same ones.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import Tensor

from coupled.config import by_name
from coupled.config.controls import KEYS, with_siblings
from coupled.config.errors import check_options
from coupled.datasets import AnyImageSet, check_labels, suiting
from coupled.objectives import Loss, Needs
from coupled.stream.seeds import permutation, philox

Classes = int | list[int | str]


class Objective(NamedTuple):
    """An objective with its options filled in, and the rule of its own by which it sets weights, if it has one."""

    name: str
    function: Callable[..., Loss]
    options: dict[str, Any]
    needs: Needs
    batch_sums: Callable[..., dict[str, Tensor]] | None = None
    after_step: Callable[..., dict[str, Tensor]] | None = None

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({options})"


def find_objective(arm: str, name: str, options: Mapping[str, Any], temperature: float) -> Objective:
    """The objective `name` of `arm`; the run's `temperature` where it takes one and the options give none.

    Raises ValueError that begins with "arms.<arm>" for an unknown name or an option that is not allowed.
    """
    try:
        module = by_name.find("coupled.objectives", name)
    except ValueError as error:
        raise ValueError(f"arms.{arm}.objective: {error}") from None
    absent = [f"{each}()" for each in (name, "needs") if not callable(getattr(module, each, None))]
    if absent:
        raise ValueError(f"arms.{arm}.objective: {module.__file__} has no {' and no '.join(absent)}")
    function = getattr(module, name)
    given = dict(options)
    if "temperature" in inspect.signature(function).parameters:
        given.setdefault("temperature", temperature)
    checked = check_options(function, given, f"arms.{arm}")
    if hasattr(module, "check"):
        try:
            module.check(**checked)
        except ValueError as error:
            raise ValueError(f"arms.{arm}.{error}") from None
    rule = [getattr(module, each, None) for each in ("batch_sums", "after_step")]
    return Objective(name, function, checked, module.needs(**checked), *rule)


def load_image_set(name: str, options: Mapping[str, Any], split: str, seed: int) -> AnyImageSet:
    """The split of the image set `name`, of the classes that the options choose, which may be drawn by `seed`.

    Raises ValueError for an unknown name or option, or missing images.
    """
    load, checked, classes = _image_set(name, options)
    images: AnyImageSet = load(split, **checked)
    check_labels(images)
    return images if classes is None else images.only(_chosen(images, classes, seed))


def suited(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a user gives them, with what suits their image set added where they say nothing.

    Raises ValueError for an unknown image set; whatever else is wrong stays for the check of the settings.
    """
    image_set = settings.get("image_set")
    if not isinstance(image_set, dict) or not isinstance(image_set.get("name"), str):
        return settings
    module, root = _find_image_set(image_set["name"]), image_set.get("root")
    if image_set.get("size") is None and hasattr(module, "own_size") and isinstance(root, str):
        image_set = {**image_set, "size": module.own_size(Path(root))}
    size = image_set.get("size")
    suits = suiting(size if isinstance(size, int) else module.SIZE)
    given = {section: settings.get(section, {}) for section in suits}
    return {
        **settings,
        "image_set": image_set,
        **{key: {**suits[key], **each} for key, each in given.items() if isinstance(each, dict)},
    }


def filled_in(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved settings with every option of the image set and of the arms' objectives written out, defaults included.

    So run.json says what was trained, and two spellings of one experiment have one digest. Plain JSON values. Raises
    ValueError for an unknown name or option.
    """
    name, options = _name_and_options(settings["image_set"], "name")
    _, checked, classes = _image_set(name, options)
    if "size" in checked and checked["size"] is None:
        checked["size"] = _find_image_set(name).own_size(checked["root"])
    chosen = {} if classes is None else {"classes": classes}
    tree = {**settings, "arms": {}, "image_set": {"name": name, **checked, **chosen}}
    for arm, given in with_siblings(settings["arms"]).items():
        control = {key: given.pop(key) for key in KEYS if key in given}
        name, options = _name_and_options(given, "objective")
        checked = find_objective(arm, name, options, settings["temperature"]).options
        tree["arms"][arm] = {"objective": name, **checked, **control}
    filled: dict[str, Any] = json.loads(json.dumps(tree, default=str))  # a path is text in the settings
    return filled


def _name_and_options(section: Mapping[str, Any], key: str) -> tuple[str, dict[str, Any]]:
    return section[key], {name: value for name, value in section.items() if name != key}


def _find_image_set(name: str) -> ModuleType:
    try:
        return by_name.find("coupled.datasets", name)
    except ValueError as error:
        raise ValueError(f"image_set.name: {error}") from None


def _image_set(
    name: str, options: Mapping[str, Any]
) -> tuple[Callable[..., AnyImageSet], dict[str, Any], Classes | None]:
    """The loader of the image set, its options filled in, and the classes to use (None: all).

    A set that is made, not found, takes `classes` itself: it makes so many, or as many as a list needs.
    """
    load = _find_image_set(name).load
    makes = "classes" in inspect.signature(load).parameters
    classes = options.get("classes")
    if makes and not isinstance(classes, list):
        return load, check_options(load, options, "image_set"), None
    others = {key: value for key, value in options.items() if key != "classes"}
    if classes is not None:
        _check_classes(classes)
    if makes:
        others["classes"] = 1 + max([1, *(each for each in options["classes"] if isinstance(each, int))])
    checked = check_options(load, others, "image_set", {} if makes else {"classes": Any})
    return load, {key: value for key, value in checked.items() if makes or key != "classes"}, classes


def _check_classes(classes: Any) -> None:
    counted = type(classes) is int and classes >= 2
    listed = isinstance(classes, list) and len(classes) >= 2 and {*map(type, classes)} <= {int, str}
    if not (counted or listed):
        raise ValueError(
            f"image_set.classes: got {classes}; allowed is a number of classes to draw, or a list of numbers or names;"
            " at least 2"
        )


def _chosen(images: AnyImageSet, classes: Classes, seed: int) -> list[int]:
    """The numbers of the chosen classes. Drawn ones ascend, and fewer lie among more; listed ones stay as listed."""
    names = images.class_names
    if isinstance(classes, int):
        if classes > len(names):
            raise ValueError(f"image_set.classes: got {classes}; '{images.name}' has {len(names)} classes")
        return sorted(permutation(len(names), philox(seed, "classes"))[:classes].tolist())
    numbers = [_number(images, each) for each in classes]
    twice = [number for number in numbers if numbers.count(number) > 1]
    if twice:
        raise ValueError(f"image_set.classes: class {twice[0]} ('{names[twice[0]]}') stands twice")
    return numbers


def _number(images: AnyImageSet, chosen: int | str) -> int:
    """The class that an entry of a list means. A number that may also be a name must mean the same class."""
    names = images.class_names
    if isinstance(chosen, str):
        numbers = [names.index(chosen)] if chosen in names else []
    else:
        by_number = [chosen] if 0 <= chosen < len(names) else []
        by_name = [k for k, name in enumerate(names) if name.isdecimal() and int(name) == chosen]
        numbers = sorted({*by_number, *by_name})
        if len(numbers) > 1:
            readings = " or ".join(f'class number {k}, named "{names[k]}"' for k in numbers)
            raise ValueError(
                f"image_set.classes: got {chosen}, which may mean {readings} of '{images.name}'; write the name of the"
                " one you mean, in quotes"
            )
    if not numbers:
        raise ValueError(
            f"image_set.classes: '{images.name}' has no class {chosen!r}; it has 0 to {len(names) - 1}, named"
            f" {', '.join(names[:3])}, ..."
        )
    return numbers[0]
