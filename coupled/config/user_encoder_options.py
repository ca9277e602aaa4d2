"""The options of a user-defined encoder: the arguments of its function, as keys of the section `encoder`."""

import inspect
from collections.abc import Mapping
from typing import Any

from coupled.config.errors import check_options
from coupled.config.user_code import UserCode, find, is_reference, refused

KEY = "encoder.name"
EXPECTED = (
    "expected is f(*, options) that returns an nn.Module with the attribute num_features, which maps images"
    " [M, 3, S, S] to [M, num_features]; with the argument image_size it gets S (docs/your_own.md)"
)
# keys of every encoder; not allowed as names of options
OF_SECTION = ("name", "views_in_one_pass", "weights", "weights_digest", "freeze")
SIZE = "image_size"


def with_encoder_options(section: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved section `encoder` with all options of the user's function written out; unchanged for timm.

    Raises ValueError for a key that the function does not take.
    """
    if not is_reference(section["name"]):
        return dict(section)
    code = find_encoder(section["name"])
    given = {key: value for key, value in section.items() if key not in OF_SECTION}
    takes = sorted({*inspect.signature(code.value).parameters} - {SIZE})
    for key, value in given.items():
        if key == SIZE:
            raise ValueError(f"encoder.{SIZE}: got {value}; the size of the images is dataset.{SIZE}")
        if key not in takes:
            raise ValueError(
                f"encoder.{key}: got {value}; {code.reference} does not take it (it takes:"
                f" {', '.join(takes) or 'none'}); remove it, or write encoder.{key}=null"
            )
    kept = {key: section[key] for key in OF_SECTION if key in section}
    return {**kept, **encoder_arguments(code, given, None)}


def encoder_arguments(code: UserCode, options: Mapping[str, Any], image_size: int | None) -> dict[str, Any]:
    """The options with their defaults, checked; and `image_size`, if it is set and the function takes it."""
    parameters = inspect.signature(code.value).parameters
    takes_size = SIZE in parameters
    by_keyword = takes_size and parameters[SIZE].kind is inspect.Parameter.KEYWORD_ONLY
    checked = check_options(code.value, {**options, **({SIZE: image_size or 0} if by_keyword else {})}, "encoder")
    options = {key: value for key, value in checked.items() if key != SIZE}
    return {**options, SIZE: image_size} if takes_size and image_size is not None else options


def find_encoder(name: str) -> UserCode:
    """The function that `name` refers to. Raises ValueError if its options are not keyword-only."""
    code = find(name, KEY)
    if not callable(code.value):
        raise refused(code, KEY, "is not a function", EXPECTED)
    for each in inspect.signature(code.value).parameters.values():
        if each.name in OF_SECTION or (each.name != SIZE and each.kind is not inspect.Parameter.KEYWORD_ONLY):
            own = "; " + ", ".join(OF_SECTION) + " are keys of every encoder" if each.name in OF_SECTION else ""
            raise refused(code, KEY, f"takes {inspect.signature(code.value)}{own}", EXPECTED)
    return code
