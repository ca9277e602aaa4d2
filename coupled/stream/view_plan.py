"""The augmentation parameters of every view, as a function of only (seed, epoch, image, view).

An epoch draws one table with 32 random 32-bit numbers per view, and further tables if the augmentation uses them: of
solarize and rotation (8 numbers), of policies (8), of warps (16) and of mixing (8). The row of (image, view) has a
fixed position in the Philox stream of (seed, epoch, view), so it does not depend on the number of images or views, the
order, the batch or the rank. The meaning of a column never changes: a new operation takes a free column of the second
table, or a new table. All arithmetic from the table to the plan and its crops is single IEEE operations, which give the
same bits on every machine. An operation with probability p happens if a uniform number in [0, 1) is below p.

Shape letters: N images of the dataset, B images of a batch, V views, R random numbers of a view, 10 crop candidates,
4 colour jitters, K operations of a policy.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, permutations, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.stream.mixing import MIX_DRAWS, MixPlan, decode_mix
from coupled.stream.policies import POLICY_DRAWS, decode_policy
from coupled.stream.portable import portable_exp
from coupled.stream.recipe import Augmentation, Range, Recipe
from coupled.stream.seeds import random_uint32
from coupled.stream.warp import WARP_DRAWS, decode_warp

JITTERS = ("brightness", "contrast", "saturation", "hue")  # `order_BV4` has indices into this tuple
HUE = 3
CANDIDATES = 10
STEP_DRAWS = 8  # numbers per view of a user-defined step
_DRAWS = 32  # numbers per view of the table "views", all used; 8 numbers are one Philox block
_FURTHER_DRAWS = 8  # of the table "further views": solarize, rotation, angle, 5 unused
_ORDERS = np.array(list(permutations(range(4))))  # [24, 4]


@dataclass(frozen=True, eq=False)
class ViewPlan:
    """Parameters of the views of a batch, on the CPU; they do not depend on the size of images and views."""

    crop_area_BVT: Tensor  # float64, T = 10 candidates: fraction of the image's area
    crop_aspect_BVT: Tensor  # float64: width / height
    crop_top_BV: Tensor  # float64 in [0, 1): relative position among the possible ones
    crop_left_BV: Tensor
    flip_BV: Tensor  # bool
    brightness_BV: Tensor  # float32, 1 = unchanged
    contrast_BV: Tensor
    saturation_BV: Tensor
    hue_BV: Tensor  # float32, 0 = unchanged
    order_BV4: Tensor  # int64: the jitter that comes first, second, ...
    grayscale_BV: Tensor  # bool
    blur_sigma_BV: Tensor  # float32, 0 = no blur
    solarize_BV: Tensor | None  # float32: values of at least this are inverted, infinite = none
    rotation_BV: Tensor | None  # float32: degrees counter-clockwise, 0 = none; both None: the run uses neither
    policy_op_BVK: Tensor | None  # int64, index into `policies.OPERATIONS`
    policy_value_BVK: Tensor | None  # float64, the parameters of these operations; both None: the run has no policy
    warp_BV8: Tensor | None  # float64, moves of the warp's control points; None: the run warps no view
    crop_ratios: tuple[Range, ...]  # of each view, for images so narrow that no candidate fits
    blur_taps_BV: Tensor | None = None  # int64, 0 = a tenth of the view; None: no view sets it
    steps_BVKR: Tensor | None = None  # float32 in [0, 1): R numbers for each of the K user-defined steps

    def __getitem__(self, images: slice | NDArray[np.int64]) -> "ViewPlan":
        """Return the plan of some images of the batch."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        sliced: dict[str, Any] = {name: part[images] for name, part in parts.items() if isinstance(part, Tensor)}
        return replace(self, **sliced)


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """The random numbers of an epoch; `plan[indices_B]` is the plan of these images, in this order."""

    table_VNR: NDArray[np.uint32]
    further_VNR: NDArray[np.uint32] | None  # None: no operation uses them
    augmentation: Augmentation
    local: "EpochPlan | None" = None  # of the local views
    steps_KVNR: NDArray[np.uint32] | None = None  # numbers for the user-defined steps
    policy_VNR: NDArray[np.uint32] | None = None  # None: no view has a policy
    warp_VNR: NDArray[np.uint32] | None = None  # None: no view is warped
    mix_VNR: NDArray[np.uint32] | None = None  # None: images are not mixed

    def of_sizes(self, size: int) -> list[tuple[int, "EpochPlan"]]:
        """Return pairs (side, plan): of the views, and of the local views if there are any."""
        return [(size, self), *([(self.augmentation.local_size, self.local)] if self.local else [])]

    def for_crops(self, indices_B: NDArray[np.int64]) -> "EpochPlan":
        """Return the part of the plan that crops and flips of these images need, small enough to send to a worker."""
        return EpochPlan(self.table_VNR[:, indices_B], None, replace(self.augmentation, steps=()))

    def mix(self, indices_G: NDArray[np.int64]) -> MixPlan | None:
        """Return how the images of this global batch are mixed; None if they are not."""
        alphas = self.augmentation.mixup_alpha, self.augmentation.cutmix_alpha
        return None if self.mix_VNR is None else decode_mix(_uniform(self.mix_VNR[:, indices_G]), *alphas)

    def __getitem__(self, indices_B: NDArray[np.int64]) -> ViewPlan:
        tables = (self.table_VNR, self.further_VNR, self.policy_VNR, self.warp_VNR)
        drawn = [None if table_VNR is None else _uniform(table_VNR[:, indices_B]) for table_VNR in tables]
        plans = [
            _decode([None if each_RBV is None else each_RBV[..., views] for each_RBV in drawn], recipe)
            for views, recipe in self.augmentation.recipes()
        ]
        plan = plans[0] if len(plans) == 1 else _beside(plans)
        plan = replace(plan, blur_taps_BV=_blur_taps(self.augmentation, len(indices_B)))
        if self.steps_KVNR is None:
            return plan
        steps_BVKR = (self.steps_KVNR[:, :, indices_B] >> np.uint32(8)).transpose(2, 1, 0, 3) * np.float32(2.0**-24)
        return replace(plan, steps_BVKR=torch.from_numpy(np.ascontiguousarray(steps_BVKR, dtype=np.float32)))


def view_plan(seed: int, epoch: int, images: int, augmentation: Augmentation, stream: str = "views") -> EpochPlan:
    """Return the plan of an epoch over a dataset of `images` images.

    The plan keeps 128 to 256 bytes per view, which are decoded per batch. Local views have separate tables from the
    seed stream "local views".
    """

    def table(name: str, numbers: int) -> NDArray[np.uint32]:
        shape, views = (images, numbers), range(augmentation.views)
        return np.stack([random_uint32(seed, name, epoch, view, shape=shape) for view in views])

    recipes = [recipe for _, recipe in augmentation.recipes()]
    further = any(recipe.uses_further_draws for recipe in recipes)
    further_VNR = table(f"further {stream}", _FURTHER_DRAWS) if further else None
    local = augmentation.local()
    plan_of_local = view_plan(seed, epoch, images, local, "local views") if local else None
    policy_VNR = table(f"policy {stream}", POLICY_DRAWS) if any(each.policy != "none" for each in recipes) else None
    warp_VNR = table(f"warp {stream}", WARP_DRAWS) if any(recipe.warp_prob > 0 for recipe in recipes) else None
    steps = [table(f"step {k} of {stream}", STEP_DRAWS) for k in range(len(augmentation.steps))]
    steps_KVNR = np.stack(steps) if steps else None
    rest = steps_KVNR, policy_VNR, warp_VNR, table(f"mix {stream}", MIX_DRAWS) if augmentation.mixes else None
    return EpochPlan(table(stream, _DRAWS), further_VNR, augmentation, plan_of_local, *rest)


def _uniform(table_VBR: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return the random numbers as numbers in [0, 1): [R, B, V]."""
    return table_VBR.transpose(2, 1, 0).astype(np.float64, order="C") * 2.0**-32


def _decode(draws: Sequence[NDArray[np.float64] | None], augmentation: Recipe) -> ViewPlan:
    draws_RBV, further_RBV, policy_RBV, warp_RBV = draws
    assert draws_RBV is not None
    area_TBV, ratio_TBV, rest = np.split(draws_RBV, [CANDIDATES, 2 * CANDIDATES])
    top, left, flip, jitter, brightness, contrast, saturation, hue, jitter_order, grayscale, blur, sigma = rest
    jittered = jitter < augmentation.jitter_prob

    def factor(draw: NDArray[np.float64], strength: float) -> Tensor:
        factors = _between(draw, max(0.0, 1 - strength), 1 + strength)
        return torch.from_numpy(np.where(jittered, factors, 1.0).astype(np.float32))

    # rounding to float32 removes differences of libm in the last bit
    low, high = (float(np.float32(math.log(aspect))) for aspect in augmentation.crop_ratio)
    hue = np.where(jittered, _between(hue, -augmentation.hue, augmentation.hue), 0.0)
    sigma = np.where(blur < augmentation.blur_prob, _between(sigma, *augmentation.blur_sigma), 0.0)
    threshold = degrees = None
    if further_RBV is not None:
        solarize, rotation, angle = further_RBV[:3]
        threshold = np.where(solarize < augmentation.solarize_prob, augmentation.solarize_threshold, np.inf)
        turned = _between(angle, *augmentation.rotation_degrees)
        degrees = np.where(rotation < augmentation.rotation_prob, turned, 0.0)
    op_BVK = value_BVK = None
    if policy_RBV is not None:
        options = (augmentation.policy, augmentation.policy_num_ops, augmentation.policy_magnitude)
        op_BVK, value_BVK = map(torch.from_numpy, decode_policy(policy_RBV, *options))
    moves = (augmentation.warp_prob, augmentation.warp_length)
    warp_BV8 = None if warp_RBV is None else torch.from_numpy(decode_warp(warp_RBV, *moves))
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
        solarize_BV=None if threshold is None else torch.from_numpy(threshold.astype(np.float32)),
        rotation_BV=None if degrees is None else torch.from_numpy(degrees.astype(np.float32)),
        policy_op_BVK=op_BVK,
        policy_value_BVK=value_BVK,
        warp_BV8=warp_BV8,
        crop_ratios=(augmentation.crop_ratio,) * draws_RBV.shape[-1],
    )


def _blur_taps(augmentation: Augmentation, images: int) -> Tensor | None:
    taps_BV = torch.zeros(images, augmentation.views, dtype=torch.int64)
    for views, recipe in augmentation.recipes():
        taps_BV[:, views] = recipe.blur_taps or 0
    return taps_BV if taps_BV.any() else None


def _beside(plans: Sequence[ViewPlan]) -> ViewPlan:
    """Join plans of the same images into one plan with all their views."""
    parts = {field.name: [getattr(plan, field.name) for plan in plans] for field in fields(ViewPlan)}
    joined: dict[str, Any] = {
        name: torch.cat(each, dim=1) for name, each in parts.items() if isinstance(each[0], Tensor)
    }
    return replace(plans[0], **joined, crop_ratios=tuple(chain.from_iterable(parts["crop_ratios"])))


def inputs_digest(indices_B: NDArray[np.int64], *plans: ViewPlan, mix: MixPlan | None = None) -> str:
    """Return blake2b (32 hex digits) over image indices and all numbers of their plan, or plans with local views.

    Equal digests prove that two runs had the same inputs at a step. Operations that the run does not use are left out.
    """
    ratios = "".join(map(repr, dict.fromkeys(plans[0].crop_ratios)))  # one value, or two for two recipes
    digest = hashlib.blake2b(ratios.encode(), digest_size=16)
    digest.update(np.ascontiguousarray(indices_B, dtype="<i8").data)
    whole = [*product(plans, fields(ViewPlan)), *product([mix] if mix else [], fields(MixPlan))]
    for plan, field in whole:
        part = getattr(plan, field.name)
        if isinstance(part, Tensor):
            digest.update(repr((field.name, tuple(part.shape))).encode())
            digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def _between(draw: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return low + draw * (high - low)


def _images_first(values_TBV: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values_TBV.transpose(1, 2, 0)))
