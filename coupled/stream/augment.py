"""Apply a view plan to a batch of images.

The order is crop, flip, rotation, colour jitter in the plan's order, policy (RandAugment, AutoAugment), grayscale,
warp, blur, solarize: the order of BYOL, with the rotation where lightly has it, and policy and warp where SupCon's code
has them.

The plan is on the CPU, which decides which views an operation applies to, so it never waits for a GPU. Views with the
same order of jitters are sorted together, so that each jitter works in place on slices. On a CPU the views are computed
in chunks that fit into its cache.

Shape letters: V views, B images, G images of the global batch, M = V * B views of the batch (view v of image b is
number v * B + b), m views of a chunk, S side of a view, L = S * S, H, W sides of an image, K taps, J operations.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.stream import functional
from coupled.stream.crops import crop_box
from coupled.stream.mixing import MixPlan, boxes, rows_needed
from coupled.stream.policy_operations import apply_policy_, numbers_of
from coupled.stream.portable import portable_cos_sin, portable_exp
from coupled.stream.view_plan import HUE, JITTERS, ViewPlan
from coupled.stream.warp import apply_warp_, splines

_ADJUST = [getattr(functional, f"adjust_{name}_") for name in JITTERS]
GREY, BLURRED, SOLARIZED, ROTATED = range(4, 8)  # columns of `work_MJ`, after the four jitters
_CPU_CHUNK = 3 * 2**16  # float32 values: 0.75 MiB, so that a chunk fits into a typical L2 cache
_GPU_CHUNK = 2**28


def augment(images_B3HW: Tensor, plan: ViewPlan, size: int) -> Tensor:
    """Return the views of uint8 images, float32 [V, B, 3, S, S] in [0, 1], on the images' device.

    The bits of a view depend only on its image and its plan, not on the other images of the batch, the number of
    threads or the device. Crop and colours follow torchvision's tensor kernels. The blur is that of SimCLR (Chen et al.
    2020), whose kernel covers about a tenth of the view, unless the plan has the number of its taps.
    """
    batch, _, height, width = images_B3HW.shape
    device = images_B3HW.device
    work_MJ, factors_M4 = _work(plan)
    # hue is the slowest operation: keep its slices together
    op_MK, value_MK = _policy(plan)
    sort_M = np.lexsort([*work_MJ.T[::-1], *(work_MJ[:, :4] == HUE).T, *op_MK.T[::-1]])
    work_MJ, op_MK, number_M = work_MJ[sort_M], op_MK[sort_M], torch.from_numpy(sort_M)
    parts_BV = (crop_box(plan, height, width), plan.flip_BV, plan.blur_sigma_BV)
    box_M4, flip_M, sigma_M, factors_M4 = (part_M[number_M] for part_M in (*map(_flat, parts_BV), factors_M4))

    further_3M = _further(plan, number_M, device)
    places_7M = torch.column_stack([number_M, number_M % batch, flip_M, box_M4]).T.contiguous()
    number_M, image_M, flip_M, top_M, left_M, high_M, wide_M = send(places_7M, device)
    factors_4M1 = send(factors_M4.T.contiguous(), device)[..., None]
    policy_KM6 = send(numbers_of(op_MK, value_MK[sort_M], size), device)
    moves_M8 = None if plan.warp_BV8 is None else _flat(plan.warp_BV8)[sort_M].numpy()
    splines_MT = None if moves_M8 is None else send(splines(moves_M8), device)
    blur_MK = send(_gaussian(sigma_M.numpy(), _taps(plan, size)[sort_M]), device)

    views_M3SS = torch.empty(len(number_M), 3, size, size, device=device)
    step = max(1, (_CPU_CHUNK if device.type == "cpu" else _GPU_CHUNK) // (3 * size * size))
    with torch.inference_mode():  # lowers the overhead of many small operations; `views_M3SS` is created outside
        rows = functional.row_taps(top_M, high_M, size, int(box_M4[:, 2].max()))
        columns = functional.column_taps(left_M, wide_M, flip_M, size, int(box_M4[:, 3].max()))
        for start in range(0, len(number_M), step):
            chunk = slice(start, start + step)
            pixels_3mSS = functional.resample(images_B3HW, image_M[chunk], rows.of(chunk), columns.of(chunk))
            if further_3M is not None:
                _rotate_(pixels_3mSS, work_MJ[chunk, ROTATED], further_3M[1:, chunk])
            _jitter_(pixels_3mSS.flatten(2), work_MJ[chunk], factors_4M1[:, chunk])
            apply_policy_(pixels_3mSS, op_MK[chunk], policy_KM6[:, chunk])
            _grey_(pixels_3mSS.flatten(2), work_MJ[chunk, GREY])
            if moves_M8 is not None and splines_MT is not None:
                apply_warp_(pixels_3mSS, moves_M8[chunk], splines_MT[chunk])
            _blur_(pixels_3mSS, work_MJ[chunk, BLURRED], blur_MK[chunk])
            if further_3M is not None:
                chosen_m, thresholds_m1 = work_MJ[chunk, SOLARIZED] == 1, further_3M[0, chunk, None]
                _apply_(functional.solarize_, pixels_3mSS.flatten(2), chosen_m, thresholds_m1)
            views_M3SS.index_copy_(0, number_M[chunk], pixels_3mSS.transpose(0, 1))
    return views_M3SS.unflatten(0, (-1, batch))


def augment_further(views_VB3SS: Tensor, plan: ViewPlan, steps: Sequence[Callable[..., Tensor]]) -> Tensor:
    """Apply the user-defined steps; each is called with the views [M, 3, S, S] and its random numbers [M, R]."""
    for k, step in enumerate(steps):
        assert plan.steps_BVKR is not None
        random_MR = send(_flat(plan.steps_BVKR[:, :, k]).contiguous(), views_VB3SS.device)
        views_VB3SS = step(views_VB3SS.flatten(0, 1), random_MR).view_as(views_VB3SS)
    return views_VB3SS


def mix_views(views_VM3SS: Tensor, mix: MixPlan, own: slice) -> Tensor:
    """Return the mixed views of the images `own` [V, B, 3, S, S] from the views of the positions `rows_needed`."""
    device, size = views_VM3SS.device, views_VM3SS.shape[-1]
    place_G = torch.zeros_like(mix.partner_G)
    place_G[rows_needed(mix.partner_G.numpy(), own)] = torch.arange(views_VM3SS.shape[1])
    shares = (mix.cutmix_GV, mix.weight_GV, 1 - mix.weight_GV)
    parts_GV7 = torch.cat([boxes(mix, size), *(part_GV[..., None] for part_GV in shares)], dim=2)
    numbers_7VB11 = send(parts_GV7[own].permute(2, 1, 0).float().contiguous(), device)[..., None, None]
    top, left, bottom, right, cutmix, share, rest = numbers_7VB11
    pixel_S = torch.arange(size, device=device)
    down_S1 = pixel_S[:, None]
    inside_VBSS = (down_S1 >= top) & (down_S1 < bottom) & (pixel_S >= left) & (pixel_S < right)
    own_VB1SS, other_VB1SS = (
        torch.where(cutmix > 0, region_VBSS.float(), weight)[:, :, None]
        for region_VBSS, weight in ((~inside_VBSS, share), (inside_VBSS, rest))
    )
    others_VB3SS = views_VM3SS.index_select(1, send(place_G[mix.partner_G[own]], device)).mul_(other_VB1SS)
    return others_VB3SS.add_(views_VM3SS[:, : own.stop - own.start] * own_VB1SS)


def normalise(views: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (value - mean) / std of each colour channel of [..., 3, S, S], as a new tensor."""
    shift_3, scale_3 = send(torch.tensor([list(mean), [1 / deviation for deviation in std]]), views.device)
    return views.sub(shift_3[:, None, None]).mul_(scale_3[:, None, None])


def clean_views(images_B3HW: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return the largest central square of uint8 images, resized and normalised, float32 [B, 3, S, S]."""
    batch, _, height, width = images_B3HW.shape
    side = min(height, width)
    image_B = torch.arange(batch, device=images_B3HW.device)
    side_B, upright_B = torch.full_like(image_B, side), torch.zeros_like(image_B)
    rows = functional.row_taps(torch.full_like(image_B, (height - side) // 2), side_B, size, side)
    columns = functional.column_taps(torch.full_like(image_B, (width - side) // 2), side_B, upright_B, size, side)
    views_3BSS = functional.resample(images_B3HW, image_B, rows, columns)
    return normalise(views_3BSS.transpose(0, 1).contiguous(), mean, std)


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a CPU tensor to `device`; to a GPU from pinned memory, so that the CPU does not wait for the copy."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _work(plan: ViewPlan) -> tuple[NDArray[np.int64], Tensor]:
    """Return the operations of each view [M, J] and the factors of the jitters [M, 4].

    The columns are the four jitters (-1: changes nothing), grayscale, blur, and, if the plan has them, solarize and
    rotation.
    """
    order_M4 = _flat(plan.order_BV4)
    factors_M4 = torch.stack([_flat(getattr(plan, f"{name}_BV")) for name in JITTERS], dim=1).gather(1, order_M4)
    jitters_M4 = torch.where(factors_M4 == (order_M4 != HUE), -1, order_M4)  # the identity is factor 1, or 0 for hue
    work = [jitters_M4, _flat(plan.grayscale_BV), _flat(plan.blur_sigma_BV) > 0]
    if plan.solarize_BV is not None and plan.rotation_BV is not None:
        work += [_flat(plan.solarize_BV) < torch.inf, _flat(plan.rotation_BV) != 0]
    return torch.column_stack(work).numpy(), factors_M4


def _further(plan: ViewPlan, number_M: Tensor, device: torch.device) -> Tensor | None:
    """Return solarize threshold, and cosine and sine of the rotation, of the views in this order: float32 [3, M]."""
    if plan.solarize_BV is None or plan.rotation_BV is None:
        return None
    cos_M, sin_M = portable_cos_sin(_flat(plan.rotation_BV)[number_M].double().numpy())
    turns_2M = torch.from_numpy(np.stack([cos_M, sin_M])).float()
    return send(torch.cat([_flat(plan.solarize_BV)[number_M][None], turns_2M]), device)


def _policy(plan: ViewPlan) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the operations of the policy and their parameters, [M, K]; K = 0 without a policy."""
    if plan.policy_op_BVK is None or plan.policy_value_BVK is None:
        none_M0 = np.zeros((plan.flip_BV.numel(), 0))
        return none_M0.astype(np.int64), none_M0
    return _flat(plan.policy_op_BVK).numpy(), _flat(plan.policy_value_BVK).numpy()


def _rotate_(pixels_3mSS: Tensor, rotated_m: NDArray[np.int64], turns_2m: Tensor) -> None:
    def rotate_(part_3nSS: Tensor, turns_n2: Tensor) -> None:
        part_3nSS.copy_(functional.rotate(part_3nSS, *turns_n2.T))

    _apply_(rotate_, pixels_3mSS, rotated_m == 1, turns_2m.T)


def _jitter_(pixels_3mL: Tensor, work_mJ: NDArray[np.int64], factors_4m1: Tensor) -> None:
    for jitters_m, factors_m1 in zip(work_mJ.T[:4], factors_4m1, strict=True):
        for jitter, adjust_ in enumerate(_ADJUST):
            _apply_(adjust_, pixels_3mL, jitters_m == jitter, factors_m1)


def _grey_(pixels_3mL: Tensor, grey_m: NDArray[np.int64]) -> None:
    _apply_(lambda part_3nL: part_3nL.copy_(functional.luma(part_3nL)), pixels_3mL, grey_m == 1)


def _blur_(pixels_3mSS: Tensor, blurred_m: NDArray[np.int64], weights_mK: Tensor) -> None:
    def blur_(part_3nSS: Tensor, weights_nK: Tensor) -> None:
        part_3nSS.copy_(functional.blur(part_3nSS, weights_nK))

    _apply_(blur_, pixels_3mSS, blurred_m == 1, weights_mK)


def _apply_(
    operation_: Callable[..., object], pixels_3m: Tensor, chosen_m: NDArray[np.bool_], *numbers_m: Tensor
) -> None:
    """Apply an in-place operation to the chosen views: once, so that a GPU gets few large operations."""
    chosen_n = np.flatnonzero(chosen_m)
    if not len(chosen_n):
        return
    first, end = int(chosen_n[0]), int(chosen_n[-1]) + 1
    if end - first == len(chosen_n):  # consecutive views need no copy
        operation_(pixels_3m[:, first:end], *(part_m[first:end] for part_m in numbers_m))
        return
    index_n = send(torch.from_numpy(chosen_n), pixels_3m.device)
    part_3n = pixels_3m.index_select(1, index_n)
    operation_(part_3n, *(part_m.index_select(0, index_n) for part_m in numbers_m))
    pixels_3m.index_copy_(1, index_n, part_3n)


def _gaussian(sigma_M: NDArray[np.float32], taps_M: NDArray[np.int64]) -> Tensor:
    """Return the weights of a Gaussian blur, which sum to 1, float32 [M, K]; unused where sigma is 0.

    Views with fewer than K taps have weights of 0 on both sides.
    """
    most = int(taps_M.max())
    distance_K = np.arange(most) - most // 2
    scaled_MK = distance_K / np.where(sigma_M > 0, sigma_M, 1).astype(np.float64)[:, None]
    weights_MK = portable_exp(scaled_MK**2 * -0.5)
    weights_KM = np.where(abs(distance_K) <= taps_M[:, None] // 2, weights_MK, 0.0).T
    total_M = sum(weights_KM)  # in a fixed order: the order of NumPy's sums may depend on the shape
    return torch.from_numpy(np.ascontiguousarray((weights_KM / total_M).T, dtype=np.float32))


def _taps(plan: ViewPlan, size: int) -> NDArray[np.int64]:
    """Return the number of taps of the blur of each view [M]."""
    taps_BV = torch.zeros_like(plan.order_BV4[..., 0]) if plan.blur_taps_BV is None else plan.blur_taps_BV
    taps: NDArray[np.int64] = _flat(torch.where(taps_BV > 0, taps_BV, max(3, size // 10 | 1))).numpy()
    return taps


def _flat(part_BV: Tensor) -> Tensor:
    return part_BV.transpose(0, 1).flatten(0, 1)
