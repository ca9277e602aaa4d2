"""Pixel operations on many views at once, with separate parameters for each view.

Every operation consists of copies, of elementwise IEEE operations in a fixed order, and of exact sums, whose result
does not depend on the order. So a view has the same bits for any batch, any number of threads, and on CPU and GPU.
Libraries do not guarantee this for their sums and products. Divisions by constants are written as multiplications,
because CUDA computes them in this way.

Shape letters: B images, M views, S side of a view, H, W sides of an image, K filter taps, L = S * S pixels of a view.
Views are stored as [3, M, ...], so that each colour channel is one contiguous block.
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
    """Source pixels and weights of the views along one axis."""

    pixels_MSK: Tensor  # int32, row or column of the image
    weights_MSK: Tensor  # float32

    def of(self, views: slice) -> "Taps":
        """Return the taps of consecutive views."""
        return Taps(self.pixels_MSK[views], self.weights_MSK[views])


def row_taps(top_M: Tensor, high_M: Tensor, size: int, longest: int) -> Taps:
    """Return taps that resize `high` rows from `top` on to `size`; `longest` is at least the maximum of `high`."""
    return _taps(top_M, high_M, torch.zeros_like(high_M), size, longest, _ROW_STEPS, _LEVELS)


def column_taps(left_M: Tensor, wide_M: Tensor, flip_M: Tensor, size: int, longest: int) -> Taps:
    """Return taps that resize `wide` columns from `left` on to `size`, mirrored where `flip` is 1."""
    return _taps(left_M, wide_M, flip_M, size, longest, _COLUMN_STEPS, 1)


def _taps(start_M: Tensor, length_M: Tensor, flip_M: Tensor, size: int, longest: int, steps: int, total: int) -> Taps:
    """Return bilinear taps with antialiasing as in torchvision: a triangle around the centre of the target pixel.

    The radius of the triangle is one source pixel or one target pixel, whichever is larger; it is cut at the borders.
    The weights are normalised to the sum `total`. Taps outside the triangle have weight 0, so `longest` only changes
    their number. The cumulative sums are rounded instead of the weights, so that the total sum stays exact.
    """
    kept_K11 = torch.arange(max(2, -(-2 * longest // size)), device=start_M.device)[:, None, None]
    target_S = torch.arange(size, device=start_M.device)
    start_M1, length_M1, flip_M1 = (part_M[:, None].float() for part_M in (start_M, length_M, flip_M))
    target_MS = target_S + flip_M1 * (size - 1 - 2 * target_S)
    scale_M1 = length_M1 * (1 / size)
    reach_M1 = scale_M1.clamp(min=1)
    centre_MS = (target_MS + 0.5) * scale_M1
    pixel_KMS = (centre_MS - reach_M1 + 0.5).floor() + kept_K11
    inside_KMS = torch.minimum(pixel_KMS.clamp(min=0), length_M1 - 1)
    triangle_KMS = (1 - (pixel_KMS + 0.5 - centre_MS).abs() / reach_M1).clamp(min=0)
    triangle_KMS *= (1 - (pixel_KMS - inside_KMS).abs()).clamp(min=0)  # 0 outside: whole numbers differ by 1 or more
    sums_KMS = torch.stack(list(accumulate(triangle_KMS, torch.add)))
    rounded_KMS = (sums_KMS / sums_KMS[-1] * steps).round_() * (total / steps)
    weights_KMS = torch.cat([rounded_KMS[:1], rounded_KMS[1:] - rounded_KMS[:-1]])
    return Taps(*((part.permute(1, 2, 0).contiguous()) for part in ((inside_KMS + start_M1).int(), weights_KMS)))


def resample(images_B3HW: Tensor, image_M: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Resample uint8 images, view m from image `image_M[m]`, to float32 [3, M, S, S] in [0, 1].

    Rows are summed first and rounded to 1/16 of a grey level, then columns, so every sum fits into float32's 24 bits.
    """
    (_, _, height, width), (views, size, _) = images_B3HW.shape, rows.pixels_MSK.shape
    picked_MH3W = images_B3HW.index_select(0, image_M).permute(0, 2, 1, 3)
    table = picked_MH3W.to(torch.float32, memory_format=torch.contiguous_format).view(views * height, 3 * width)
    lines_MY3W = _weighted_sums(table, rows, height).round_().view(views, size * 3, width)
    table = lines_MY3W.transpose(1, 2).reshape(views * width, size * 3)
    views_MXY3 = _weighted_sums(table, columns, width).view(views, size, size, 3)
    return views_MXY3.permute(3, 0, 2, 1).contiguous().mul_(1 / (255 * _LEVELS))


def _weighted_sums(table: Tensor, taps: Taps, length: int) -> Tensor:
    """Return for each target pixel the weighted sum of rows of `table`, which has `length` rows per view."""
    first_M11 = torch.arange(0, len(table), length, dtype=torch.int32, device=table.device)[:, None, None]
    index = (taps.pixels_MSK + first_M11).flatten(0, 1)
    return F.embedding_bag(index, table, per_sample_weights=taps.weights_MSK.flatten(0, 1), mode="sum")


def rotate(pixels_3MSS: Tensor, cos_M: Tensor, sin_M: Tensor) -> Tensor:
    """Rotate each view counter-clockwise about its centre by its angle, bilinear, black outside -> [3, M, S, S].

    A rotation by a multiple of 90 degrees only moves pixels and changes no value.
    """
    size = pixels_3MSS.shape[-1]
    from_centre_S = torch.arange(size, device=pixels_3MSS.device) - (size - 1) / 2
    cos_M11, sin_M11 = cos_M[:, None, None], sin_M[:, None, None]
    y_MSS = (sin_M11 * from_centre_S).add(cos_M11 * from_centre_S[:, None]).add_((size - 1) / 2)
    x_MSS = (cos_M11 * from_centre_S).sub(sin_M11 * from_centre_S[:, None]).add_((size - 1) / 2)
    return sample(pixels_3MSS, y_MSS, x_MSS)


def sample(pixels_3MSS: Tensor, y_MSS: Tensor, x_MSS: Tensor) -> Tensor:
    """Return the bilinear values at these positions, in pixels, which are overwritten; outside is black."""
    size = pixels_3MSS.shape[-1]
    # a black border of 1 pixel before and 2 after the image: positions outside are clamped onto it with weight 0
    (top_ML, down_ML), (left_ML, right_ML) = (_pixel_and_share(each_MSS, size) for each_MSS in (y_MSS, x_MSS))
    width = size + 3
    flat_3MP = F.pad(pixels_3MSS, (1, 2, 1, 2)).flatten(2)
    first_ML = (top_ML * width).add_(left_ML)

    def neighbour(offset: int) -> Tensor:
        return flat_3MP.gather(2, first_ML.add(offset).expand(3, -1, -1))

    upper_3ML = _between(neighbour(0), neighbour(1), right_ML)
    lower_3ML = _between(neighbour(width), neighbour(width + 1), right_ML)
    return _between(upper_3ML, lower_3ML, down_ML).clamp_(0, 1).view_as(pixels_3MSS)


def _pixel_and_share(places_MSS: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return for each position on an axis the pixel at or before it, from the border on, and the weight of the next."""
    places_ML = places_MSS.flatten(1).clamp_(-1, size)
    pixel_ML = places_ML.floor()
    return pixel_ML.long().add_(1), places_ML - pixel_ML


def _between(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Interpolate; equal values are unchanged. torch.lerp would fuse the operations on some devices."""
    return other.sub_(one).mul_(share).add_(one)


def luma(pixels_3ML: Tensor) -> Tensor:
    """Return the grey value of each pixel [M, L], with the ITU-R 601 weights as rounded by torchvision."""
    red, green, blue = pixels_3ML
    return (red * 0.2989).add_(green * 0.587).add_(blue * 0.114)


def adjust_brightness_(pixels_3ML: Tensor, factor_M1: Tensor) -> None:
    """In place: factor * pixel, clamped to [0, 1]."""
    pixels_3ML.mul_(factor_M1).clamp_(0, 1)


def adjust_contrast_(pixels_3ML: Tensor, factor_M1: Tensor) -> None:
    """In place: factor * pixel + (1 - factor) * mean luma of the view, clamped to [0, 1].

    The luma is rounded to multiples of 2^-22 for the mean, so that the sum in float64 is exact in any order.
    """
    grey_ML = luma(pixels_3ML).mul_(2**22).round_()
    mean_M1 = (grey_ML.sum(1, keepdim=True, dtype=torch.float64) * (2.0**-22 / grey_ML.shape[1])).float()
    pixels_3ML.mul_(factor_M1).add_((1 - factor_M1) * mean_M1).clamp_(0, 1)


def adjust_saturation_(pixels_3ML: Tensor, factor_M1: Tensor) -> None:
    """In place: factor * pixel + (1 - factor) * luma, clamped to [0, 1]."""
    grey_ML = luma(pixels_3ML).mul_(1 - factor_M1)
    pixels_3ML.mul_(factor_M1).add_(grey_ML).clamp_(0, 1)


def adjust_hue_(pixels_3ML: Tensor, turns_M1: Tensor) -> None:
    """In place: shift the hue by a fraction of the colour wheel in [-0.5, 0.5]; HSV saturation and value are unchanged.

    In closed form, without a case for each sixth of the wheel. Let least and most be the smallest and the largest of
    red, green and blue, and chroma = most - least. The hue in sixths from red is 1 + (g + b - r - least) / chroma,
    with the sign of g - b. From a hue h in [0, 6) a colour is least + chroma * clamp(share, 0, 1), where share is
    |h - 3| - 1 for red, 2 - |h - 2| for green and 2 - |h - 4| for blue.
    """
    red, green, blue = pixels_3ML
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue).sub_(least)
    angle = (green + blue).sub_(red).sub_(least).div_(chroma.clamp(min=1e-12)).add_(1)
    hue = angle.copysign_(green - blue).add_(turns_M1 * 6)
    hue.sub_((hue * (1 / 6)).floor_().mul_(6))
    torch.sub((hue - 3).abs_(), 1, out=red)
    torch.sub(2, (hue - 2).abs_(), out=green)
    torch.sub(2, (hue - 4).abs_(), out=blue)
    pixels_3ML.clamp_(0, 1).mul_(chroma).add_(least)


def blur(pixels_3MSS: Tensor, weights_MK: Tensor) -> Tensor:
    """Convolve columns and rows of each view with its K weights (K odd), reflected at the border -> [3, M, S, S]."""
    size, taps = pixels_3MSS.shape[-1], weights_MK.shape[1]
    margin = taps // 2
    weights_KM11 = weights_MK.T[:, :, None, None]
    for padding, axis in (((0, 0, margin, margin), 2), ((margin, margin, 0, 0), 3)):
        padded = F.pad(pixels_3MSS, padding, mode="reflect")
        terms = (padded.narrow(axis, k, size) * weights_KM11[k] for k in range(taps))
        pixels_3MSS = reduce(Tensor.add_, terms)
    return pixels_3MSS


def solarize_(pixels_3ML: Tensor, threshold_M1: Tensor) -> None:
    """In place: invert values of at least the view's threshold, x -> 1 - x."""
    pixels_3ML.copy_(torch.where(pixels_3ML >= threshold_M1, 1 - pixels_3ML, pixels_3ML))
