"""Apply a view plan to a batch of images: crop, flip, colour jitter in the plan's order, grayscale, blur.

The plan lives on the CPU, so which views an operation concerns is decided there and a GPU is never waited for. Views
with the same order of jitters are made neighbours, so that each jitter works in place on slices; and on a CPU the
views are made in chunks that fit into its cache.

Shape letters: V views, B images, N = V * B views of the batch (view v of image b is number v * B + b), n views of a
chunk, S side of a view, P = S * S, H, W sides of an image, K taps.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.stream import kernels
from coupled.stream.view_plan import BRIGHTNESS, CONTRAST, HUE, SATURATION, ViewPlan, crop_box, portable_exp

_JITTERS = {
    BRIGHTNESS: kernels.adjust_brightness_,
    CONTRAST: kernels.adjust_contrast_,
    SATURATION: kernels.adjust_saturation_,
    HUE: kernels.adjust_hue_,
}
_CPU_CHUNK = 3 * 2**16  # float32 values: 0.75 MiB, so that a chunk stays in a usual second-level cache
_GPU_CHUNK = 2**28


def augment(images_B3HW: Tensor, plan: ViewPlan, size: int) -> Tensor:
    """The views of uint8 images -> float32 [V, B, 3, S, S] in [0, 1], on the images' device.

    A view depends on its image and its plan alone, bit for bit: not on its neighbours in the batch, the threads or the
    device. Crop and colours follow torchvision's kernels for float tensors, the blur SimCLR's (Chen et al. 2020), whose
    kernel covers about a tenth of the view.
    """
    batch, _, height, width = images_B3HW.shape
    device = images_B3HW.device
    number_N, jitters_N4 = _neighbours(plan)
    flip_N, grey_N, sigma_N, box_N4, *factors = (
        _flat(part_BV)[number_N]
        for part_BV in (plan.flip_BV, plan.grayscale_BV, plan.blur_sigma_BV, crop_box(plan, height, width))
        + (plan.brightness_BV, plan.contrast_BV, plan.saturation_BV, plan.hue_BV)
    )
    places_7N = send(torch.column_stack([number_N, number_N % batch, flip_N, box_N4]).T.contiguous(), device)
    number_N, image_N, flip_N, top_N, left_N, high_N, wide_N = places_7N
    rows = kernels.resampling_taps(top_N, high_N, torch.zeros_like(flip_N), size, int(box_N4[:, 2].max()))
    columns = kernels.resampling_taps(left_N, wide_N, flip_N, size, int(box_N4[:, 3].max()))
    factor_4N1 = send(torch.stack(factors), device)[..., None]

    views_N3SS = torch.empty(len(number_N), 3, size, size, device=device)
    step = max(1, (_CPU_CHUNK if device.type == "cpu" else _GPU_CHUNK) // views_N3SS[0].numel())
    for start in range(0, len(number_N), step):
        chunk = slice(start, start + step)
        pixels_3nSS = kernels.resample(images_B3HW, image_N[chunk], rows.of(chunk), columns.of(chunk))
        _jitter_(pixels_3nSS.flatten(2), jitters_N4[chunk], factor_4N1[:, chunk])
        _grayscale_(pixels_3nSS.flatten(2), grey_N[chunk])
        _blur_(pixels_3nSS, sigma_N[chunk])
        views_N3SS.index_copy_(0, number_N[chunk], pixels_3nSS.transpose(0, 1))
    return views_N3SS.unflatten(0, (-1, batch))


def normalise(views: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(value - mean) / std of each colour of [..., 3, S, S], as a new tensor."""
    shift_3, scale_3 = send(torch.tensor([list(mean), [1 / deviation for deviation in std]]), views.device)
    return views.sub(shift_3[:, None, None]).mul_(scale_3[:, None, None])


def clean_views(images_B3HW: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The largest central square of uint8 images, resized and normalised -> float32 [B, 3, S, S]: for evaluation."""
    batch, _, height, width = images_B3HW.shape
    side = min(height, width)
    image_B = torch.arange(batch, device=images_B3HW.device)
    upright_B, side_B = torch.zeros_like(image_B), torch.full_like(image_B, side)
    rows = kernels.resampling_taps(torch.full_like(image_B, (height - side) // 2), side_B, upright_B, size, side)
    columns = kernels.resampling_taps(torch.full_like(image_B, (width - side) // 2), side_B, upright_B, size, side)
    views_3BSS = kernels.resample(images_B3HW, image_B, rows, columns)
    return normalise(views_3BSS.transpose(0, 1).contiguous(), mean, std)


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A CPU tensor on `device`; to a GPU from pinned memory, so that the program does not wait for the copy."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _neighbours(plan: ViewPlan) -> tuple[Tensor, NDArray[np.int64]]:
    """Numbers of the views in the order of work [N], and which jitters change each of them [N, 4], -1 for none.

    Hue is by far the longest jitter, so its place in the order comes first: few long slices instead of many short.
    """
    order_N4 = _flat(plan.order_BV4)
    factors = (plan.brightness_BV - 1, plan.contrast_BV - 1, plan.saturation_BV - 1, plan.hue_BV)
    changes_N4 = torch.stack([_flat(factor_BV) != 0 for factor_BV in factors], dim=1).gather(1, order_N4)
    jitters_N4 = torch.where(changes_N4, order_N4, -1).numpy()
    hue_N4 = jitters_N4 == HUE
    number_N = np.lexsort([*jitters_N4.T[::-1], *hue_N4.T])
    return torch.from_numpy(number_N), jitters_N4[number_N]


def _jitter_(pixels_3nP: Tensor, jitters_n4: NDArray[np.int64], factor_4n1: Tensor) -> None:
    for place in range(4):
        borders = [0, *(np.flatnonzero(np.diff(jitters_n4[:, place])) + 1).tolist(), len(jitters_n4)]
        for first, end in pairwise(borders):
            jitter = int(jitters_n4[first, place])
            if jitter >= 0:
                _JITTERS[jitter](pixels_3nP[:, first:end], factor_4n1[jitter, first:end])


def _grayscale_(pixels_3nP: Tensor, chosen_n: Tensor) -> None:
    if chosen_n.any():
        index = send(chosen_n.nonzero()[:, 0], pixels_3nP.device)
        grey_nP = kernels.luma(pixels_3nP.index_select(1, index))
        for colour_nP in pixels_3nP:
            colour_nP.index_copy_(0, index, grey_nP)


def _blur_(pixels_3nSS: Tensor, sigma_n: Tensor) -> None:
    chosen_n = sigma_n > 0
    if chosen_n.any():
        index = send(chosen_n.nonzero()[:, 0], pixels_3nSS.device)
        weights_nK = send(_gaussian(sigma_n[chosen_n], max(3, pixels_3nSS.shape[-1] // 10 | 1)), pixels_3nSS.device)
        pixels_3nSS.index_copy_(1, index, kernels.blur(pixels_3nSS.index_select(1, index), weights_nK))


def _gaussian(sigma_n: Tensor, taps: int) -> Tensor:
    """Weights [n, K] of a Gaussian blur, normalised, float32."""
    distance_K = np.arange(taps) - taps // 2
    weights_nK = portable_exp((distance_K / sigma_n.double().numpy()[:, None]) ** 2 * -0.5)
    total_n = sum(weights_nK.T)  # one after the other: NumPy's sum may depend on the shape
    return torch.from_numpy((weights_nK.T / total_n).T.astype(np.float32))


def _flat(part_BV: Tensor) -> Tensor:
    return part_BV.transpose(0, 1).flatten(0, 1)
