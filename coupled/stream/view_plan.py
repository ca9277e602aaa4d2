"""Every view's augmentation parameters: a function of (seed, epoch, image, view) and of nothing else.

An epoch draws one table of random 32-bit numbers, 32 per view. The row of (image, view) is found by its place in the
Philox stream of (seed, epoch, view), so it does not depend on the number of images or of views, the order, the batch
or the rank. All arithmetic from the table to the plan and its crops is single IEEE operations: the same bits on every
machine. Probability p is met when a uniform number in [0, 1) is below p.

Shape letters: N images of the dataset, B images of a batch, V views, R random numbers of a view, 10 crop candidates,
4 colour jitters.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import permutations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.stream.seeds import random_uint32

JITTERS = ("brightness", "contrast", "saturation", "hue")  # `order_BV4` names them by their place here
HUE = 3
CANDIDATES = 10
STEP_DRAWS = 8  # numbers per view of a step of the user
_DRAWS = 32  # numbers per view; 8 of them are one Philox block
_ORDERS = np.array(list(permutations(range(4))))  # [24, 4]

Range = tuple[float, float]


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the augmentation, with the meaning they have in torchvision and SimCLR (Chen et al. 2020)."""

    crop_scale: Range  # share of the image's area
    crop_ratio: Range  # width / height
    hflip_prob: float  # probability
    jitter_prob: float  # probability that the colours are jittered
    brightness: float  # factor within 1 +- strength, not below 0
    contrast: float
    saturation: float
    hue: float  # shift within +- strength, in turns of the colour wheel
    grayscale_prob: float  # probability
    blur_prob: float  # probability
    blur_sigma: Range  # pixels of the view
    steps: tuple[Callable[[Tensor, Tensor], Tensor], ...] = ()  # of the user, after all others: see `augment_further`


@dataclass(frozen=True, eq=False)
class ViewPlan:
    """Parameters of the views of a batch, on the CPU; independent of the size of images and views."""

    crop_area_BVT: Tensor  # float64, T = 10 candidates: share of the image's area
    crop_aspect_BVT: Tensor  # float64: width / height
    crop_top_BV: Tensor  # float64 in [0, 1): place among the possible ones
    crop_left_BV: Tensor
    flip_BV: Tensor  # bool
    brightness_BV: Tensor  # float32, 1 = unchanged
    contrast_BV: Tensor
    saturation_BV: Tensor
    hue_BV: Tensor  # float32, 0 = unchanged
    order_BV4: Tensor  # int64: the jitter that comes first, second, ...
    grayscale_BV: Tensor  # bool
    blur_sigma_BV: Tensor  # float32, 0 = no blur
    crop_ratio: Range  # for images so oblong that no candidate fits
    steps_BVKR: Tensor | None = None  # float32 in [0, 1): R numbers for each of the K steps of the user

    def __getitem__(self, images: slice) -> "ViewPlan":
        """The plan of consecutive images of the batch."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        sliced: dict[str, Any] = {name: part[images] for name, part in parts.items() if isinstance(part, Tensor)}
        return replace(self, **sliced)


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """The random numbers of an epoch; `plan[indices_B]` is the plan of these images, in this order."""

    table_VNR: NDArray[np.uint32]
    augmentation: Augmentation
    steps_KVNR: NDArray[np.uint32] | None = None  # numbers for the user's steps, of streams of their own

    def __getitem__(self, indices_B: NDArray[np.int64]) -> ViewPlan:
        draws_RBV = self.table_VNR[:, indices_B].transpose(2, 1, 0).astype(np.float64, order="C")
        plan = _decode(draws_RBV * 2.0**-32, self.augmentation)
        if self.steps_KVNR is None:
            return plan
        steps_BVKR = (self.steps_KVNR[:, :, indices_B] >> np.uint32(8)).transpose(2, 1, 0, 3) * np.float32(2.0**-24)
        return replace(plan, steps_BVKR=torch.from_numpy(np.ascontiguousarray(steps_BVKR, dtype=np.float32)))


def view_plan(seed: int, epoch: int, images: int, augmentation: Augmentation, views: int = 2) -> EpochPlan:
    """The plan of an epoch over a set of so many images: 128 bytes a view are kept, decoded per batch."""
    streams = [random_uint32(seed, "views", epoch, view, shape=(images, _DRAWS)) for view in range(views)]
    further = [
        [random_uint32(seed, "steps", epoch, view, k, shape=(images, STEP_DRAWS)) for view in range(views)]
        for k in range(len(augmentation.steps))
    ]
    return EpochPlan(np.stack(streams), augmentation, np.array(further) if further else None)


def _decode(draws_RBV: NDArray[np.float64], augmentation: Augmentation) -> ViewPlan:
    area_TBV, ratio_TBV, rest = np.split(draws_RBV, [CANDIDATES, 2 * CANDIDATES])
    top, left, flip, jitter, brightness, contrast, saturation, hue, jitter_order, grayscale, blur, sigma = rest
    jittered = jitter < augmentation.jitter_prob

    def factor(draw: NDArray[np.float64], strength: float) -> Tensor:
        factors = _between(draw, max(0.0, 1 - strength), 1 + strength)
        return torch.from_numpy(np.where(jittered, factors, 1.0).astype(np.float32))

    low, high = (float(np.float32(math.log(aspect))) for aspect in augmentation.crop_ratio)  # hides libm's last bit
    hue = np.where(jittered, _between(hue, -augmentation.hue, augmentation.hue), 0.0)
    sigma = np.where(blur < augmentation.blur_prob, _between(sigma, *augmentation.blur_sigma), 0.0)
    return ViewPlan(
        crop_area_BVT=_images_first(_between(area_TBV, *augmentation.crop_scale)),
        crop_aspect_BVT=_images_first(portable_exp(_between(ratio_TBV, low, high))),
        crop_top_BV=torch.from_numpy(top.copy()),
        crop_left_BV=torch.from_numpy(left.copy()),
        flip_BV=torch.from_numpy(flip < augmentation.hflip_prob),
        brightness_BV=factor(brightness, augmentation.brightness),
        contrast_BV=factor(contrast, augmentation.contrast),
        saturation_BV=factor(saturation, augmentation.saturation),
        hue_BV=torch.from_numpy(hue.astype(np.float32)),
        order_BV4=torch.from_numpy(_ORDERS[(jitter_order * len(_ORDERS)).astype(np.int64)]),
        grayscale_BV=torch.from_numpy(grayscale < augmentation.grayscale_prob),
        blur_sigma_BV=torch.from_numpy(sigma.astype(np.float32)),
        crop_ratio=augmentation.crop_ratio,
    )


def crop_box(plan: ViewPlan, height: int, width: int) -> Tensor:
    """Crops as (top, left, height, width) in whole pixels, int64 [B, V, 4].

    The distribution is that of torchvision's RandomResizedCrop: the first of ten candidates (area uniform, aspect
    log-uniform, sides rounded) that fits into the image, at a uniform place; if none fits, the largest central crop
    within the allowed aspects.
    """
    area_BVT = plan.crop_area_BVT.numpy() * (height * width)
    aspect_BVT = plan.crop_aspect_BVT.numpy()
    widths_BVT = np.rint(np.sqrt(area_BVT * aspect_BVT))
    heights_BVT = np.rint(np.sqrt(area_BVT / aspect_BVT))
    fits_BVT = (widths_BVT > 0) & (widths_BVT <= width) & (heights_BVT > 0) & (heights_BVT <= height)
    first_BV1 = fits_BVT.argmax(axis=-1, keepdims=True)
    found_BV = fits_BVT.any(axis=-1)
    aspect = min(max(width / height, plan.crop_ratio[0]), plan.crop_ratio[1])
    central_height, central_width = min(height, round(width / aspect)), min(width, round(height * aspect))
    high_BV = np.where(found_BV, np.take_along_axis(heights_BVT, first_BV1, -1)[..., 0], central_height)
    wide_BV = np.where(found_BV, np.take_along_axis(widths_BVT, first_BV1, -1)[..., 0], central_width)
    top_BV = np.where(found_BV, plan.crop_top_BV.numpy() * (height - high_BV + 1), (height - central_height) // 2)
    left_BV = np.where(found_BV, plan.crop_left_BV.numpy() * (width - wide_BV + 1), (width - central_width) // 2)
    return torch.from_numpy(np.stack([top_BV, left_BV, high_BV, wide_BV], axis=-1).astype(np.int64))


def inputs_digest(indices_B: NDArray[np.int64], plan: ViewPlan) -> str:
    """32 hexadecimal digits (blake2b) over image indices and every number of their plan.

    Equal digests are the proof that two runs saw the same inputs at a step.
    """
    digest = hashlib.blake2b(repr(plan.crop_ratio).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(indices_B, dtype="<i8").data)
    for field in fields(plan):
        part = getattr(plan, field.name)
        if isinstance(part, Tensor):
            digest.update(repr((field.name, tuple(part.shape))).encode())
            digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def portable_exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(x) for x <= 1, relative error below 1e-12, by additions and multiplications alone.

    NumPy's and torch's exp may differ in the last bit between machines and even between places of an array, and a crop
    that is one bit wider can be one pixel wider. Here (exp(x / 1024))^1024, the inner one by its power series.
    """
    small = np.maximum(x, -80.0) * 2.0**-10
    result = np.ones_like(small)
    for k in range(8, 0, -1):
        result = 1 + result * (small * (1 / k))
    for _ in range(10):
        result = result * result
    return result


def _between(draw: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return low + draw * (high - low)


def _images_first(values_TBV: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values_TBV.transpose(1, 2, 0)))
