"""The operations of the policies RandAugment and AutoAugment on many views at once, with the results of torchvision.

They are torchvision's kernels for uint8 tensors: nearest pixels, black outside. The views are rounded to whole grey
levels, and all values stay whole numbers in float32. As in `functional.py`, a view has the same bits for any batch, any
number of threads, and on CPU and GPU.

Shape letters: M views, m views of a chunk, n views with the same operation, K operations of a view, S side of a view,
L = S * S.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from coupled.stream.policies import OPERATIONS
from coupled.stream.portable import portable_cos_sin

NUMBERS = 6  # per view and operation, for `apply_policy_`
_AFFINE = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")  # computed together, as "rotate"
_KIND = np.array([OPERATIONS.index("rotate" if name in _AFFINE else name) for name in OPERATIONS])


def numbers_of(op_MK: NDArray[np.int64], value_MK: NDArray[np.float64], size: int) -> Tensor:
    """Return the numbers that `apply_policy_` needs for each operation, float32 [K, M, 6].

    A geometric operation has a matrix that maps a target pixel to its source, a blend has its two weights, `posterize`
    the distance of its levels, and `solarize` its threshold.
    """
    numbers_MK6 = np.zeros((*op_MK.shape, NUMBERS))
    numbers_MK6[..., 0] = numbers_MK6[..., 4] = 1  # the identity
    half = (size - 1) / 2
    for number in np.unique(op_MK):
        chosen = op_MK == number
        value_n, out = value_MK[chosen], numbers_MK6[chosen]
        match OPERATIONS[number]:
            case "shear_x":
                out[:, 1], out[:, 2] = value_n, value_n / 2
            case "shear_y":
                out[:, 3], out[:, 5] = value_n, value_n / 2
            case "translate_x":
                out[:, 2] = -np.trunc(value_n * size)
            case "translate_y":
                out[:, 5] = -np.trunc(value_n * size)
            case "rotate":
                cos_n, sin_n = portable_cos_sin(value_n)
                out[:, 0], out[:, 1], out[:, 2] = cos_n, -sin_n, half - half * (cos_n - sin_n)
                out[:, 3], out[:, 4], out[:, 5] = sin_n, cos_n, half - half * (cos_n + sin_n)
            case "brightness" | "color" | "contrast" | "sharpness":
                out[:, 0], out[:, 1] = 1 + value_n, 1 - (1 + value_n)
            case "posterize":
                out[:, 0] = 2 ** (8 - value_n)
            case "solarize":
                out[:, 0] = value_n
        numbers_MK6[chosen] = out
    return torch.from_numpy(np.ascontiguousarray(numbers_MK6.transpose(1, 0, 2), dtype=np.float32))


def apply_policy_(pixels_3mSS: Tensor, op_mK: NDArray[np.int64], numbers_Km6: Tensor) -> None:
    """In place: apply to each view in [0, 1] its operations, one after the other; views without any are unchanged."""
    changed_n = np.flatnonzero(op_mK.any(axis=1))
    if not len(changed_n):
        return
    where_n = torch.from_numpy(changed_n).to(pixels_3mSS.device)
    levels_3nSS = pixels_3mSS.index_select(1, where_n).mul_(255).round_()
    for op_n, numbers_n6 in zip(op_mK[changed_n].T, numbers_Km6[:, where_n], strict=True):
        kind_n = _KIND[op_n]
        for kind in set(kind_n.tolist()) - {0}:
            index = torch.from_numpy(np.flatnonzero(kind_n == kind)).to(pixels_3mSS.device)
            result = _apply(OPERATIONS[kind], levels_3nSS.index_select(1, index), numbers_n6[index])
            levels_3nSS.index_copy_(1, index, result)
    pixels_3mSS.index_copy_(1, where_n, levels_3nSS.mul_(1 / 255))


def _apply(name: str, levels_3nSS: Tensor, numbers_n6: Tensor) -> Tensor:
    one_n11, two_n11 = (numbers_n6[:, k, None, None] for k in range(2))
    match name:
        case "rotate":
            return _affine(levels_3nSS, numbers_n6)
        case "brightness":
            return levels_3nSS.mul_(one_n11).clamp_(0, 255).floor_()
        case "color":
            return _blend(levels_3nSS, _grey(levels_3nSS), one_n11, two_n11)
        case "contrast":
            mean_n11 = _grey(levels_3nSS).sum((1, 2), keepdim=True, dtype=torch.float64)  # exact: whole numbers
            return _blend(levels_3nSS, (mean_n11 / levels_3nSS[0, 0].numel()).float(), one_n11, two_n11)
        case "sharpness":
            return _blend(levels_3nSS, _smooth(levels_3nSS), one_n11, two_n11)
        case "posterize":
            return levels_3nSS.div_(one_n11).floor_().mul_(one_n11)  # by a power of 2: exact
        case "solarize":
            return torch.where(levels_3nSS >= one_n11, 255 - levels_3nSS, levels_3nSS)
        case "auto_contrast":
            return _auto_contrast(levels_3nSS)
        case "equalize":
            return _equalize(levels_3nSS)
    return 255 - levels_3nSS  # invert


def _affine(levels_3nSS: Tensor, numbers_n6: Tensor) -> Tensor:
    size = levels_3nSS.shape[-1]
    x_S = torch.arange(size, device=levels_3nSS.device, dtype=torch.float32)
    a, b, c, d, e, f = numbers_n6.T[:, :, None, None]
    column_nSS = (a * x_S).add(b * x_S[:, None]).add_(c).round_()
    row_nSS = (d * x_S).add(e * x_S[:, None]).add_(f).round_()
    inside_nSS = (column_nSS == column_nSS.clamp(0, size - 1)) & (row_nSS == row_nSS.clamp(0, size - 1))
    source_nSS = row_nSS.mul_(size).add_(column_nSS).mul_(inside_nSS).long()
    picked_3nL = levels_3nSS.flatten(2).gather(2, source_nSS.flatten(1).expand(3, -1, -1))
    return picked_3nL.view_as(levels_3nSS).mul_(inside_nSS)


def _blend(levels_3nSS: Tensor, other: Tensor, share_n11: Tensor, share_of_other_n11: Tensor) -> Tensor:
    return (levels_3nSS * share_n11).add_(other * share_of_other_n11).clamp_(0, 255).floor_()


def _grey(levels_3nSS: Tensor) -> Tensor:
    red, green, blue = levels_3nSS
    return (red * 0.2989).add_(green * 0.587).add_(blue * 0.114).floor_()


def _smooth(levels_3nSS: Tensor) -> Tensor:
    """Return the mean of the 3 x 3 pixels around each, the centre with weight 5; the border is unchanged."""
    size = levels_3nSS.shape[-1]
    rows = levels_3nSS[..., :-2, :] + levels_3nSS[..., 1:-1, :] + levels_3nSS[..., 2:, :]
    sums = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(levels_3nSS[..., 1:-1, 1:-1] * 4)
    smooth_3nSS = levels_3nSS.clone()
    smooth_3nSS[..., 1 : size - 1, 1 : size - 1] = sums.mul_(1 / 13).round_()
    return smooth_3nSS


def _auto_contrast(levels_3nSS: Tensor) -> Tensor:
    """Stretch each channel to 0 to 255; a flat channel is unchanged."""
    least, most = levels_3nSS.amin((2, 3), keepdim=True), levels_3nSS.amax((2, 3), keepdim=True)
    flat = most == least
    scale = torch.where(flat, 1, 255 / (most - least))
    return (levels_3nSS - least.masked_fill(flat, 0)).mul_(scale).clamp_(0, 255).floor_()


def _equalize(levels_3nSS: Tensor) -> Tensor:
    """Map the levels of each channel so that their cumulative histogram is a straight line."""
    index_CL = levels_3nSS.flatten(0, 1).flatten(1).long()
    counts_CH = torch.zeros(len(index_CL), 256, dtype=torch.long, device=index_CL.device)
    counts_CH.scatter_add_(1, index_CL, torch.ones_like(index_CL))
    highest_C1 = index_CL.amax(1, keepdim=True)
    step_C1 = (index_CL.shape[1] - counts_CH.gather(1, highest_C1)) // 255
    table_CH = (counts_CH.cumsum(1) + step_C1 // 2) // step_C1.clamp(min=1)
    table_CH = F.pad(table_CH, (1, 0))[:, :-1].clamp_(0, 255)
    table_CH = torch.where(step_C1 == 0, torch.arange(256, device=index_CL.device), table_CH)
    return table_CH.gather(1, index_CL).to(levels_3nSS.dtype).view_as(levels_3nSS)
