"""A user-defined dataset, held in memory: a function `f(split, *, options)` that returns it, or a class built so.

The result is an `ImageDataset` or `ImageFiles`, or a sequence of (image, label), such as a torch `Dataset`, or of
rows with the columns "image" (or "img") and "label", such as a dataset of Hugging Face. An image is a Pillow image, a
uint8 array [H, W, 3] or tensor [3, H, W], or a float tensor [3, H, W] within [0, 1]; grey images have one channel or no
channel axis. Labels start at 0. The class names are `classes` of the dataset, or those of Hugging Face's `features`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from coupled.config.user_code import UserCode, errors_named, refuse_option_names, refused
from coupled.datasets import ImageDataset, ImageFiles, channel_statistics
from coupled.stream.seeds import generator_states

KEY = "dataset.name"
EXPECTED = (
    "expected is f(split, *, options) that returns, for 'train' and 'test', a torch Dataset of (image, label), the same"
    " at every call (docs/your_own.md)"
)
IMAGES, LABELS = ("image", "img"), ("label", "labels")


class UserDataset:
    """A user-defined dataset for the registry: `load(split, **options)`; `signed` is the function with its options."""

    def __init__(self, code: UserCode) -> None:
        self.code = code
        value = code.value
        self.signed: Callable[..., Any] = value.__init__ if inspect.isclass(value) else value
        parameters = inspect.signature(value).parameters.values() if callable(value) else []
        if [each.kind for each in parameters][:1] != [inspect.Parameter.POSITIONAL_OR_KEYWORD] or any(
            each.kind is not inspect.Parameter.KEYWORD_ONLY for each in [*parameters][1:]
        ):
            raise refused(code, KEY, f"takes ({', '.join(map(str, parameters))})", EXPECTED)
        refuse_option_names(code, KEY, value, ("name", "classes"))

    def load(self, split: str, **options: Any) -> ImageDataset | ImageFiles:
        """The split; mean and standard deviation are those of the train split."""
        found = self._items(split, options)
        if isinstance(found, ImageDataset | ImageFiles):
            return found
        train = self._items("train", options) if split != "train" else found
        images = {part: self._in_memory(part, items) for part, items in (("train", train), (split, found))}
        mean, std = channel_statistics(images["train"].images_N3HW)
        names = images["train"].class_names
        for number in (images[split].labels_N >= len(names)).nonzero().flatten().tolist()[:1]:
            label = int(images[split].labels_N[number])
            what = f"gives {split} image {number} the label {label}, but has {len(names)} classes"
            raise refused(self.code, KEY, what, EXPECTED)
        return replace(images[split], mean=mean, std=std, class_names=names)

    def _items(self, split: str, options: Mapping[str, Any]) -> Any:
        with self._alone("draws from a global random generator"), errors_named(self.code, KEY, EXPECTED):
            found = self.code.value(split, **options)
        if not isinstance(found, ImageDataset | ImageFiles) and not (
            hasattr(found, "__len__") and hasattr(found, "__getitem__") and len(found)
        ):
            raise refused(self.code, KEY, f"returns {_shown(found)} for '{split}'", EXPECTED)
        return found

    def _in_memory(self, split: str, items: Any) -> ImageDataset:
        images: list[Tensor] = []
        labels: list[int] = []
        with self._alone("draws from a global random generator, as a random transform does"):
            for number in range(len(items)):
                with errors_named(self.code, KEY, EXPECTED):
                    item = items[number]
                image, label = self._pair(f"{split} image {number}", item)
                if images and image.shape != images[0].shape:
                    sizes = f"{list(images[0].shape)} and {list(image.shape)}"
                    raise refused(self.code, KEY, f"gives images of sizes {sizes}", f"make them equal; {EXPECTED}")
                images.append(image)
                labels.append(label)
        names = getattr(items, "classes", None) or _feature_names(items) or [*map(str, range(max(labels) + 1))]
        none = (0.0, 0.0, 0.0)
        name = self.code.reference.rpartition(":")[2]
        labels_N = torch.tensor(labels, dtype=torch.int64)
        return ImageDataset(name, split, torch.stack(images), labels_N, tuple(map(str, names)), none, none)

    def _pair(self, where: str, item: Any) -> tuple[Tensor, int]:
        if isinstance(item, Mapping):
            item = [next((item[key] for key in keys if key in item), None) for keys in (IMAGES, LABELS)]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise refused(self.code, KEY, f"gives {_shown(item)} as {where}", EXPECTED)
        image_3HW, label = _pixels(item[0]), item[1]
        if image_3HW is None:
            raise refused(self.code, KEY, f"gives {_shown(item[0])} as {where}", EXPECTED)
        if isinstance(label, float | bool) or not hasattr(label, "__index__") or int(label) < 0:
            raise refused(self.code, KEY, f"gives {label!r} as the label of {where}", EXPECTED)
        return image_3HW, int(label)

    def _alone(self, what: str) -> "_Alone":
        return _Alone(self.code, what)


class _Alone:
    """Refuse draws from a global random generator: a run must load the same images every time."""

    def __init__(self, code: UserCode, what: str) -> None:
        self.code, self.what, self.before = code, what, generator_states(torch.device("cpu"))

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and generator_states(torch.device("cpu")) != self.before:
            raise refused(self.code, KEY, self.what, EXPECTED)


def _feature_names(items: Any) -> list[str] | None:
    features = getattr(items, "features", None) or {}
    return next((features[key].names for key in LABELS if hasattr(features.get(key), "names")), None)


def _pixels(image: Any) -> Tensor | None:
    """The image as uint8 [3, H, W]; None if it is not an image."""
    if isinstance(image, Image.Image):
        image = np.array(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image)
        image = image.permute(2, 0, 1) if image.dim() == 3 else image
    if not isinstance(image, Tensor):
        return None
    if image.is_floating_point() and float(image.min()) >= 0 and float(image.max()) <= 1:
        image = (image * 255).round().to(torch.uint8)
    image = image[None] if image.dim() == 2 else image
    if image.dtype != torch.uint8 or image.dim() != 3 or len(image) not in (1, 3) or not image.numel():
        return None
    return image.expand(3, -1, -1).contiguous()


def _shown(value: Any) -> str:
    shape = f" {list(value.shape)}" if hasattr(value, "shape") else ""
    return f"{type(value).__name__}{shape} {getattr(value, 'dtype', '')}".rstrip()
