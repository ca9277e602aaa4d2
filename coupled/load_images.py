"""A split of an image set, by the set's name and options."""

from collections.abc import Mapping
from typing import Any

from coupled import by_name
from coupled.checked import check_options
from coupled.image_sets import ImageSet, check_labels


def load_images(name: str, options: Mapping[str, Any], split: str) -> ImageSet:
    """The split, its labels checked. Raises ValueError for an unknown name or option, and for images it cannot use."""
    try:
        load = by_name.find("coupled.image_sets", name).load
    except ValueError as error:
        raise ValueError(f"image_set.name: {error}") from None
    images: ImageSet = load(split, **check_options(load, options, "image_set"))
    check_labels(images)
    return images
