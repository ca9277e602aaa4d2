"""What the settings choose by name: objectives and image sets, their options checked and filled in."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from coupled import by_name
from coupled.checked import check_options
from coupled.image_sets import ImageSet, check_labels
from coupled.objectives import Loss, Needs


class Objective(NamedTuple):
    """An objective with its options filled in."""

    name: str
    function: Callable[..., Loss]
    options: dict[str, Any]
    needs: Needs

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
    return Objective(name, function, checked, module.needs(**checked))


def load_image_set(name: str, options: Mapping[str, Any], split: str) -> ImageSet:
    """The split, its labels checked. Raises ValueError for an unknown name or option, and for images it cannot use."""
    load = _loader(name)
    images: ImageSet = load(split, **check_options(load, options, "image_set"))
    check_labels(images)
    return images


def filled_in(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved settings with every option of the image set and of the arms' objectives written out, defaults included.

    So run.json says what was trained, and two spellings of one experiment have one digest. Plain JSON values. Raises
    ValueError for an unknown name or option.
    """
    name, options = _name_and_options(settings["image_set"], "name")
    tree = {**settings, "arms": {}, "image_set": {"name": name, **check_options(_loader(name), options, "image_set")}}
    for arm, given in settings["arms"].items():
        name, options = _name_and_options(given, "objective")
        tree["arms"][arm] = {"objective": name, **find_objective(arm, name, options, settings["temperature"]).options}
    filled: dict[str, Any] = json.loads(json.dumps(tree, default=str))  # a path is text in the settings
    return filled


def _name_and_options(section: Mapping[str, Any], key: str) -> tuple[str, dict[str, Any]]:
    return section[key], {name: value for name, value in section.items() if name != key}


def _loader(name: str) -> Callable[..., ImageSet]:
    try:
        loader: Callable[..., ImageSet] = by_name.find("coupled.image_sets", name).load
    except ValueError as error:
        raise ValueError(f"image_set.name: {error}") from None
    return loader
