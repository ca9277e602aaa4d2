"""The option `classes` of every dataset: the number of classes to draw, or a list of class numbers and names."""

from typing import Any

from coupled.config.by_name import did_you_mean
from coupled.datasets import AnyImageDataset
from coupled.stream.seeds import permutation, philox

Classes = int | list[int | str]


def check_classes(classes: Any) -> None:
    """Raise ValueError unless `classes` is a number of classes or a list of numbers and names, at least 2."""
    counted = type(classes) is int and classes >= 2
    listed = isinstance(classes, list) and len(classes) >= 2 and {*map(type, classes)} <= {int, str}
    if not (counted or listed):
        raise ValueError(
            f"dataset.classes: got {classes}; allowed is a number of classes to draw, or a list of numbers or names;"
            " at least 2"
        )


def chosen_classes(images: AnyImageDataset, classes: Classes, seed: int) -> list[int]:
    """The numbers of the chosen classes: listed classes in their order, drawn classes sorted.

    With the same seed, a smaller number of drawn classes is a subset of a larger one.
    """
    names = images.class_names
    if not names:
        raise ValueError(f"dataset.classes: got {classes}, but '{images.name}' has no labels; remove this setting")
    if isinstance(classes, int):
        if classes > len(names):
            raise ValueError(f"dataset.classes: got {classes}; '{images.name}' has {len(names)} classes")
        return sorted(permutation(len(names), philox(seed, "classes"))[:classes].tolist())
    numbers = [_number(images, each) for each in classes]
    twice = [number for number in numbers if numbers.count(number) > 1]
    if twice:
        raise ValueError(f"dataset.classes: class {twice[0]} ('{names[twice[0]]}') is listed twice")
    return numbers


def _number(images: AnyImageDataset, chosen: int | str) -> int:
    """The class number of an entry of the list. Raises ValueError for a number that also names another class."""
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
                f"dataset.classes: got {chosen}, which may mean {readings} of '{images.name}'; write the name of the"
                " one you mean, in quotes"
            )
    if not numbers:
        raise ValueError(
            f"dataset.classes: '{images.name}' has no class {chosen!r}; it has 0 to {len(names) - 1}, named"
            f" {', '.join(names[:3])}, ...{did_you_mean(str(chosen), names)}"
        )
    return numbers[0]
