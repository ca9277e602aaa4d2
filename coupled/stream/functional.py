"""Pixel operations on many views at once, each view with its own parameters; they do what a view plan says.

Every result is made of copies, of single IEEE operations on separate elements in a fixed order, and of sums that are
exact, hence the same in any order. So a view has the same bits whatever stands beside it in the batch, on any number
of threads, and on CPU and GPU; no library promises that of its sums and products otherwise. Divisions by constants are
multiplications, because CUDA makes them so.

Shape letters: B images, N views, S side of a view, H, W sides of an image, K filter taps, P = S * S pixels of a view.
Views are kept as [3, N, ...], so that each colour is one contiguous block.
"""

from functools import reduce
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = 16  # between the two passes of `resample`, steps per grey level
_ROW_STEPS, _COLUMN_STEPS = 2**14, 2**12  # weights are multiples of 1 / steps: 8 + 14 and 12 + 12 bits, at most 24


class Taps(NamedTuple):
    """Where the pixels of views come from along one axis."""

    pixels_NSK: Tensor  # int32, row or column of the image
    weights_NSK: Tensor  # float32

    def of(self, views: slice) -> "Taps":
        """Those of consecutive views."""
        return Taps(self.pixels_NSK[views], self.weights_NSK[views])


def row_taps(top_N: Tensor, high_N: Tensor, size: int, longest: int) -> Taps:
    """Taps that resize `high` rows from `top` on to `size`; `longest` is at least every `high`."""
    return _taps(top_N, high_N, torch.zeros_like(high_N), size, longest, _ROW_STEPS, _LEVELS)


def column_taps(left_N: Tensor, wide_N: Tensor, flip_N: Tensor, size: int, longest: int) -> Taps:
    """Taps that resize `wide` columns from `left` on to `size`, mirrored where `flip` is 1."""
    return _taps(left_N, wide_N, flip_N, size, longest, _COLUMN_STEPS, 1)


def _taps(start_N: Tensor, length_N: Tensor, flip_N: Tensor, size: int, longest: int, steps: int, total: int) -> Taps:
    """Bilinear with antialiasing, as torchvision's: a triangle around the target pixel's centre, normalised to `total`.

    It reaches one source or one target pixel, whichever is larger, and is cut at the ends. Taps beyond it weigh 0, so
    `longest` changes nothing but their number. The running sums of the weights are rounded, not the weights, so that
    the last sum stays whole.
    """
    kept_K11 = torch.arange(max(2, -(-2 * longest // size)), device=start_N.device)[:, None, None]
    target_S = torch.arange(size, device=start_N.device)
    start_N1, length_N1, flip_N1 = (part_N[:, None].float() for part_N in (start_N, length_N, flip_N))
    target_NS = target_S + flip_N1 * (size - 1 - 2 * target_S)
    scale_N1 = length_N1 * (1 / size)
    reach_N1 = scale_N1.clamp(min=1)
    centre_NS = (target_NS + 0.5) * scale_N1
    pixel_KNS = (centre_NS - reach_N1 + 0.5).floor() + kept_K11
    inside_KNS = torch.minimum(pixel_KNS.clamp(min=0), length_N1 - 1)
    triangle_KNS = (1 - (pixel_KNS + 0.5 - centre_NS).abs() / reach_N1).clamp(min=0)
    triangle_KNS *= (1 - (pixel_KNS - inside_KNS).abs()).clamp(min=0)  # 0 outside: whole numbers differ by 1 or more
    sums_KNS = torch.stack(list(accumulate(triangle_KNS, torch.add)))
    rounded_KNS = (sums_KNS / sums_KNS[-1] * steps).round_() * (total / steps)
    weights_KNS = torch.cat([rounded_KNS[:1], rounded_KNS[1:] - rounded_KNS[:-1]])
    return Taps(*((part.permute(1, 2, 0).contiguous()) for part in ((inside_KNS + start_N1).int(), weights_KNS)))


def resample(images_B3HW: Tensor, image_N: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Views of uint8 images, view n of image `image_N[n]` -> float32 [3, N, S, S] in [0, 1].

    Rows are summed first, rounded to a sixteenth of a grey level, then columns: every sum fits into float32's 24 bits.
    """
    (_, _, height, width), (views, size, _) = images_B3HW.shape, rows.pixels_NSK.shape
    picked_NH3W = images_B3HW.index_select(0, image_N).permute(0, 2, 1, 3)
    table = picked_NH3W.to(torch.float32, memory_format=torch.contiguous_format).view(views * height, 3 * width)
    lines_NY3W = _weighted_sums(table, rows, height).round_().view(views, size * 3, width)
    table = lines_NY3W.transpose(1, 2).reshape(views * width, size * 3)
    views_NXY3 = _weighted_sums(table, columns, width).view(views, size, size, 3)
    return views_NXY3.permute(3, 0, 2, 1).contiguous().mul_(1 / (255 * _LEVELS))


def _weighted_sums(table: Tensor, taps: Taps, length: int) -> Tensor:
    """For each target pixel, the weighted sum of rows of `table`, which has `length` rows for each view."""
    first_N11 = torch.arange(0, len(table), length, dtype=torch.int32, device=table.device)[:, None, None]
    index = (taps.pixels_NSK + first_N11).flatten(0, 1)
    return F.embedding_bag(index, table, per_sample_weights=taps.weights_NSK.flatten(0, 1), mode="sum")


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
