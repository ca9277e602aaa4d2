"""Pixel operations on many views at once, each view with its own parameters; they do what a view plan says.

Every result is made of copies, of single IEEE operations on separate elements in a fixed order, and of sums that are
exact. So a view has the same bits whatever stands beside it in the batch, on any number of threads, and on CPU and
GPU. Fused or blocked library routines (matrix product, mean, convolution, embedding bag) promise none of this.
Divisions by constants are multiplications, because CUDA makes them so.

Shape letters: B images, N views, S side of a view, H, W sides of an image, K filter taps, P = S * S pixels of a view,
R rows of L pixels. Views are kept as [3, N, ...], so that each colour is one contiguous block.
"""

from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Taps(NamedTuple):
    """Where the pixels of a view come from along one axis."""

    pixels_KNS: Tensor  # int32, row or column of the image
    weights_KNS: Tensor  # float32, they sum to 1 over K

    def of(self, views: slice) -> "Taps":
        """Those of consecutive views."""
        return Taps(self.pixels_KNS[:, views], self.weights_KNS[:, views])


def resampling_taps(start_N: Tensor, length_N: Tensor, flip_N: Tensor, size: int, longest: int) -> Taps:
    """Bilinear resampling with antialiasing of `length` pixels from `start` on to `size`, mirrored where `flip_N`.

    Weights are a triangle around the target pixel's centre that reaches one source or one target pixel, whichever is
    larger, cut at the ends and normalised: torchvision's. `longest` >= length decides only how many taps are kept;
    those beyond the triangle weigh exactly 0.
    """
    kept_K = torch.arange(max(2, -(-2 * longest // size)), device=start_N.device)
    target_S = torch.arange(size, device=start_N.device)
    target_NS = torch.where(flip_N[:, None].bool(), size - 1 - target_S, target_S)
    start_N1, length_N1 = start_N[:, None], length_N[:, None]
    scale_N1 = length_N1.float() * (1 / size)
    reach_N1 = scale_N1.clamp(min=1)
    centre_NS = (target_NS + 0.5) * scale_N1
    first_NS = (centre_NS - reach_N1 + 0.5).floor()
    pixel_KNS = first_NS + kept_K[:, None, None]
    triangle_KNS = (1 - (pixel_KNS + 0.5 - centre_NS).abs() / reach_N1).clamp(min=0)
    triangle_KNS *= (pixel_KNS >= 0) & (pixel_KNS < length_N1)
    weights_KNS = triangle_KNS / reduce(torch.add, triangle_KNS.unbind())
    inside_KNS = torch.minimum(pixel_KNS.clamp(min=0), length_N1 - 1)
    return Taps((start_N1 + inside_KNS).int(), weights_KNS)


def resample(images_B3HW: Tensor, image_N: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Views of uint8 images, view n of image `image_N[n]` -> float32 [3, N, S, S] in [0, 1].

    Rows first, then, transposed, columns: rows of memory are cheap to pick.
    """
    _, colours, height, width = images_B3HW.shape
    views, size = rows.pixels_KNS.shape[1:]
    colour_3N = torch.arange(colours, device=image_N.device)[:, None]
    first_3N1 = ((image_N * colours + colour_3N) * height).int()[..., None]
    fractions = Taps(rows.pixels_KNS, rows.weights_KNS * (1 / 255))
    squeezed_3NSW = _weighted_rows(images_B3HW.reshape(-1, width), first_3N1, fractions)
    first_3N1 = ((torch.arange(views, device=image_N.device) + views * colour_3N) * width).int()[..., None]
    views_3NSS = _weighted_rows(squeezed_3NSW.transpose(2, 3).reshape(-1, size), first_3N1, columns)
    return views_3NSS.transpose(2, 3).contiguous().clamp_(max=1)


def _weighted_rows(table_RL: Tensor, first_3N1: Tensor, taps: Taps) -> Tensor:
    """sum_k weight * table[first + pixel], one tap after the other -> float32 [3, N, S, L]."""

    def weighted(pixels_NS: Tensor, weights_NS: Tensor) -> Tensor:
        index_3NS = first_3N1 + pixels_NS
        picked_RL = table_RL.index_select(0, index_3NS.flatten()).float()
        return picked_RL.unflatten(0, index_3NS.shape).mul_(weights_NS[..., None])

    return reduce(Tensor.add_, map(weighted, *taps))


def luma(pixels_3NP: Tensor) -> Tensor:
    """Grey value of each pixel [N, P], ITU-R 601 weights as torchvision rounds them."""
    red, green, blue = pixels_3NP
    return (red * 0.2989).add_(green * 0.587).add_(blue * 0.114)


def adjust_brightness_(pixels_3NP: Tensor, factor_N1: Tensor) -> None:
    """In place: factor * pixel, clamped to [0, 1]."""
    pixels_3NP.mul_(factor_N1).clamp_(0, 1)


def adjust_contrast_(pixels_3NP: Tensor, factor_N1: Tensor) -> None:
    """In place: factor * pixel + (1 - factor) * mean luma of the view, clamped to [0, 1].

    The luma is rounded to multiples of 2^-22 for the mean, so that the sum in float64 is exact in any order.
    """
    grey_NP = luma(pixels_3NP).mul_(2**22).round_()
    mean_N1 = (grey_NP.sum(1, keepdim=True, dtype=torch.float64) * (2.0**-22 / grey_NP.shape[1])).float()
    pixels_3NP.mul_(factor_N1).add_((1 - factor_N1) * mean_N1).clamp_(0, 1)


def adjust_saturation_(pixels_3NP: Tensor, factor_N1: Tensor) -> None:
    """In place: factor * pixel + (1 - factor) * luma, clamped to [0, 1]."""
    grey_NP = luma(pixels_3NP).mul_(1 - factor_N1)
    pixels_3NP.mul_(factor_N1).add_(grey_NP).clamp_(0, 1)


def adjust_hue_(pixels_3NP: Tensor, turns_N1: Tensor) -> None:
    """In place: turn the hue by a part of the colour wheel in [-0.5, 0.5]; HSV saturation and value stay.

    In closed form, without a case for each sixth of the wheel. Let least and most be the smallest and the largest of
    red, green and blue, and chroma = most - least. The hue in sixths from red is 1 + (g + b - r - least) / chroma,
    with the sign of g - b. From a hue h in [0, 6) a colour is least + chroma * clamp(share, 0, 1), where share is
    |h - 3| - 1 for red, 2 - |h - 2| for green and 2 - |h - 4| for blue.
    """
    red, green, blue = pixels_3NP
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue).sub_(least)
    angle = (green + blue).sub_(red).sub_(least).div_(chroma.clamp(min=1e-12)).add_(1)
    hue = angle.copysign_(green - blue).add_(turns_N1 * 6)
    hue.sub_((hue * (1 / 6)).floor_().mul_(6))
    torch.sub((hue - 3).abs_(), 1, out=red)
    torch.sub(2, (hue - 2).abs_(), out=green)
    torch.sub(2, (hue - 4).abs_(), out=blue)
    pixels_3NP.clamp_(0, 1).mul_(chroma).add_(least)


def blur(pixels_3NSS: Tensor, weights_NK: Tensor) -> Tensor:
    """Convolve columns and rows of each view with its own K weights (K odd), the border mirrored -> [3, N, S, S]."""
    size, taps = pixels_3NSS.shape[-1], weights_NK.shape[1]
    margin = taps // 2
    weights_KN11 = weights_NK.T[:, :, None, None]
    for padding, axis in (((0, 0, margin, margin), 2), ((margin, margin, 0, 0), 3)):
        padded = F.pad(pixels_3NSS, padding, mode="reflect")
        terms = (padded.narrow(axis, k, size) * weights_KN11[k] for k in range(taps))
        pixels_3NSS = reduce(Tensor.add_, terms)
    return pixels_3NSS
