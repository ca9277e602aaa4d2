"""MixUp and CutMix: each view is mixed with the same view of its image's partner in the global batch.

MixUp (Zhang et al. 2018, arXiv 1710.09412) is the weighted mean of the two views. CutMix (Yun et al. 2019, arXiv
1905.04899) takes a box of the partner's view. The weight is a Beta(alpha, alpha) number, drawn for each view as in
timm's mode "elem"; torchvision draws one for a batch.

The images of a global batch form a random cycle: the partner of an image is the next one in the order of their keys. It
depends only on the global batch, so it is the same for any number of ranks. A rank also makes the views of partners
that are on other ranks, at most as many as its own.

The columns of a view's random numbers are: the key (of the first view, for all), CutMix instead of MixUp, two for the
weight, and the centre of the box (y, x).

Shape letters: G images of the global batch, B images of this rank, M images whose views this rank makes, V views,
R random numbers of a view, S side of a view.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.stream.portable import portable_cos_sin, portable_exp, portable_log

MIX_DRAWS = 8  # numbers per view of the table "mix views", the last 2 unused
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MixPlan:
    """How the images of a global batch are mixed, on the CPU."""

    partner_G: Tensor  # int64, position in the global batch
    weight_GV: Tensor  # float64, weight of the image before a box is cut off at the border
    cutmix_GV: Tensor  # bool
    centre_GV2: Tensor  # float64 in [0, 1): centre (y, x) of the box of CutMix, shares of the side


def decode_mix(draws_RGV: Array, mixup_alpha: float | None, cutmix_alpha: float | None) -> MixPlan:
    """Return the plan of a global batch; with both alphas each view has MixUp or CutMix with probability 1/2."""
    key_GV, choice_GV, uniform_GV, turn_GV, *centre = draws_RGV[:6]
    cut = {(True, False): 0.0, (False, True): 1.0}.get((mixup_alpha is not None, cutmix_alpha is not None), 0.5)
    cutmix_GV = choice_GV < cut
    alpha_GV = np.where(cutmix_GV, cutmix_alpha or 1.0, mixup_alpha or 1.0)
    weight_GV = symmetric_beta(uniform_GV, turn_GV, alpha_GV)
    centre_GV2 = np.stack(centre, axis=-1)
    parts = (partners(key_GV[:, 0]), weight_GV, cutmix_GV, centre_GV2)
    return MixPlan(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


def symmetric_beta(uniform: Array, turn: Array, alpha: Array | float) -> Array:
    """Return Beta(alpha, alpha) numbers from two uniform numbers each, multiples of 2^-32 in [0, 1).

    (1 + T / sqrt(2 alpha + T^2)) / 2 for T of Student's t distribution with 2 alpha degrees of freedom, which is
    sqrt(2 alpha (u^(-1 / alpha) - 1)) cos(2 pi v). Source: Bailey 1994, Math. Comp. 62, 779; Devroye 1996.
    """
    power = portable_exp(portable_log(uniform + 2.0**-33) / alpha)
    cos, _ = portable_cos_sin(turn * 360)
    square = cos * cos * (1 - power)
    beta: Array = 0.5 + np.copysign(0.5, cos) * np.sqrt(square / (power + square))
    return beta


def partners(key_G: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the position of each image's partner: the next image in the order of the keys, cyclic."""
    order_G = np.argsort(key_G, kind="stable")
    partner_G = np.empty_like(order_G)
    partner_G[order_G] = np.roll(order_G, -1)
    return partner_G


def rows_needed(partner_G: NDArray[np.int64], own: slice) -> NDArray[np.int64]:
    """Return the positions whose views the rank with the positions `own` makes: its images, then further partners."""
    own_B = np.arange(own.start, own.stop)
    return np.concatenate([own_B, np.setdiff1d(partner_G[own], own_B)])


def boxes(mix: MixPlan, size: int) -> Tensor:
    """Return the boxes of CutMix (top, left, bottom, right) in pixels, int64 [G, V, 4], as torchvision draws them.

    The box has the share 1 - weight of the area, around a uniform pixel, and is cut off at the border.
    """
    half_GV1 = ((1 - mix.weight_GV).sqrt() * (0.5 * size)).floor()[..., None]
    centre_GV2 = (mix.centre_GV2 * size).floor()
    corners = ((centre_GV2 - half_GV1).clamp(min=0), (centre_GV2 + half_GV1).clamp(max=size))
    return torch.cat(corners, dim=-1).long()


def weights_of(mix: MixPlan, size: int) -> Tensor:
    """Return the weight of each image's label, float64 [G, V]: of CutMix the share of the view outside its box."""
    top, left, bottom, right = boxes(mix, size).unbind(-1)
    return torch.where(mix.cutmix_GV, 1 - ((bottom - top) * (right - left)).double() / size**2, mix.weight_GV)
