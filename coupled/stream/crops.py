"""The crop of every view in whole pixels, from its plan.

Shape letters: B images of a batch, V views, T crop candidates.
"""

import numpy as np
import torch
from torch import Tensor

from coupled.stream.view_plan import ViewPlan


def boxes_and_flips(plan: ViewPlan, height: int, width: int) -> Tensor:
    """Return top, left, height and width of each view's crop in pixels of the image, and 1 if it is mirrored.

    int64 [V, B, 5].
    """
    return torch.cat([crop_box(plan, height, width), plan.flip_BV[..., None].long()], dim=2).transpose(0, 1)


def crop_box(plan: ViewPlan, height: int, width: int) -> Tensor:
    """Return the crops as (top, left, height, width) in whole pixels, int64 [B, V, 4].

    The distribution is that of torchvision's RandomResizedCrop: the first of ten candidates (area uniform, aspect ratio
    log-uniform, sides rounded) that fits into the image, at a uniform position. If none fits, the largest central crop
    within the allowed aspect ratios is taken.
    """
    area_BVT = plan.crop_area_BVT.numpy() * (height * width)
    aspect_BVT = plan.crop_aspect_BVT.numpy()
    widths_BVT = np.rint(np.sqrt(area_BVT * aspect_BVT))
    heights_BVT = np.rint(np.sqrt(area_BVT / aspect_BVT))
    fits_BVT = (widths_BVT > 0) & (widths_BVT <= width) & (heights_BVT > 0) & (heights_BVT <= height)
    first_BV1 = fits_BVT.argmax(axis=-1, keepdims=True)
    found_BV = fits_BVT.any(axis=-1)
    aspects = [min(max(width / height, low), high) for low, high in plan.crop_ratios]
    central_V2 = [(min(height, round(width / aspect)), min(width, round(height * aspect))) for aspect in aspects]
    central_height_V, central_width_V = np.array(central_V2).T
    high_BV = np.where(found_BV, np.take_along_axis(heights_BVT, first_BV1, -1)[..., 0], central_height_V)
    wide_BV = np.where(found_BV, np.take_along_axis(widths_BVT, first_BV1, -1)[..., 0], central_width_V)
    top_BV = np.where(found_BV, plan.crop_top_BV.numpy() * (height - high_BV + 1), (height - central_height_V) // 2)
    left_BV = np.where(found_BV, plan.crop_left_BV.numpy() * (width - wide_BV + 1), (width - central_width_V) // 2)
    return torch.from_numpy(np.stack([top_BV, left_BV, high_BV, wide_BV], axis=-1).astype(np.int64))
