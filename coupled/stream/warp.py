"""Random warping: a thin-plate spline moves four control points, and the image with them.

It is the warp of the published code of SupCon (Khosla et al. 2020, arXiv 2004.11362, section 14.2). The control points
are at 1/3 and 2/3 of the side, and each coordinate moves by a normal number times a length that is uniform for a view.
Lengths and positions are shares of the side, so that a plan does not depend on the size of the view.

The columns of a view's random numbers are: whether the view is warped, the length, then two for each control point.

Shape letters: B images, V views, R random numbers of a view, M views, n warped views, P = 4 control points, S side of
a view, T = 24 numbers of a spline.
"""

from collections.abc import Iterable
from functools import reduce
from itertools import product
from operator import add

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.stream.functional import sample
from coupled.stream.portable import Numbers, portable_log, portable_normal

WARP_DRAWS = 16  # numbers per view of the table "warp views", the last 6 unused
POINTS = [(1 / 3, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1 / 3), (2 / 3, 2 / 3)]  # (y, x), shares of the side
Array = NDArray[np.float64]


def decode_warp(draws_RBV: Array, prob: float, length: float) -> Array:
    """Return the moves (y, x) of the control points of each view, in shares of the side [B, V, 8]; 0: no warp."""
    length_BV = np.where(draws_RBV[0] < prob, draws_RBV[1] * length, 0.0)
    pairs = [portable_normal(draws_RBV[k], draws_RBV[k + 1]) for k in range(2, 10, 2)]
    return np.stack([length_BV * normal_BV for pair in pairs for normal_BV in pair], axis=-1)


def splines(moves_M8: Array) -> Tensor:
    """Return the thin-plate splines that move the control points, float32 [M, 24].

    The flow at position q is sum_k w_k phi(|q - p_k|) + a + B (q - c), with phi(r) = r^2 log r, the moved points p_k
    and their mean c. It equals the move at each p_k. The columns are
    p, w, a, B and c, each for y and then x.

    The weights w lie in the null space of the affine functions of four points, which is one vector n. So w = n (n f) /
    (n A n) for the moves f and A_kl = phi(|p_k - p_l|), and f - A w is affine.
    """
    moves = moves_M8.T.reshape(4, 2, -1)
    points = np.array(POINTS)[:, :, None] + moves
    null = [_area(*np.delete(points, k, 0)) * (-1) ** k for k in range(4)]  # each [M]
    bend = [[_phi(*(one - other)) for other in points] for one in points]
    energy_M = _sum(null[k] * null[j] * bend[k][j] for k, j in product(range(4), repeat=2))
    factor_2M = _sum(null[k] * moves[k] for k in range(4)) / energy_M
    weights = [null[k] * factor_2M for k in range(4)]
    affine = [moves[k] - _sum(weights[j] * bend[k][j] for j in range(4)) for k in range(4)]  # each [2, M]
    centre_2M, offset_2M = (_sum(part) / 4 for part in (points, affine))
    apart = points - centre_2M
    yy, yx, xx = (_sum(apart[k, a] * apart[k, b] for k in range(4)) for a, b in ((0, 0), (0, 1), (1, 1)))
    along_y, along_x = (_sum(apart[k, a] * affine[k] for k in range(4)) for a in (0, 1))
    determinant = yy * xx - yx * yx
    slope_y, slope_x = (along_y * xx - along_x * yx) / determinant, (along_x * yy - along_y * yx) / determinant
    rows = [*points, *weights, offset_2M, slope_y, slope_x, centre_2M]
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(rows).T, dtype=np.float32))


def apply_warp_(pixels_3MSS: Tensor, moves_M8: Array, splines_MT: Tensor) -> None:
    """In place: warp the views whose control points move, bilinear; positions outside take the border's pixels."""
    index = torch.from_numpy(np.flatnonzero(moves_M8.any(axis=1))).to(pixels_3MSS.device)
    if not len(index):
        return
    size = pixels_3MSS.shape[-1]
    pixel_S = torch.arange(size, device=pixels_3MSS.device, dtype=torch.float32)
    down_S1, right_S = (pixel_S * (1 / size))[:, None], pixel_S * (1 / size)
    columns = splines_MT[index].T[..., None, None]
    (offset_y, offset_x), slope_y, slope_x, (centre_y, centre_x) = columns[16:].view(4, 2, -1, 1, 1)
    bend_PnSS = _phi(down_S1 - columns[0:8:2], right_S - columns[1:8:2])
    flows = [
        (down_S1 - centre_y).mul(along_y).add((right_S - centre_x) * along_x).add_(offset)
        for along_y, along_x, offset in zip(slope_y, slope_x, (offset_y, offset_x), strict=True)
    ]
    for flow_nSS, weights_Pn11 in zip(flows, (columns[8:16:2], columns[9:16:2]), strict=True):
        for part_nSS in bend_PnSS * weights_Pn11:
            flow_nSS.add_(part_nSS)
    y_nSS, x_nSS = (
        flow_nSS.mul_(-size).add_(from_S).clamp_(0, size - 1)
        for flow_nSS, from_S in zip(flows, (pixel_S[:, None], pixel_S), strict=True)
    )
    pixels_3MSS.index_copy_(1, index, sample(pixels_3MSS.index_select(1, index), y_nSS, x_nSS))


def _area(one: Array, two: Array, three: Array) -> Array:
    """Return twice the signed area of the triangles of these points, each [2, M]."""
    first, second = two - one, three - one
    area: Array = first[0] * second[1] - first[1] * second[0]
    return area


def _sum(parts: Iterable[Array]) -> Array:
    return reduce(add, parts)  # in this order, while the order of NumPy's sums may depend on the shape


def _phi(down: Numbers, right: Numbers) -> Numbers:
    """Return r^2 log r for the distance r."""
    square = down * down + right * right
    return square * portable_log(square, 8 if isinstance(square, Tensor) else 16) * 0.5
