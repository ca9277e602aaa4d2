"""Apply a view plan to a batch of images: crop, flip, colour jitter in the plan's order, grayscale, blur.

The plan lives on the CPU, so which views an operation concerns is decided there and a GPU is never waited for. Views
with the same order of jitters are made neighbours, so that each jitter works in place on slices; and on a CPU the
views are made in chunks that fit into its cache.

Shape letters: V views, B images, N = V * B views of the batch (view v of image b is number v * B + b), n views of a
chunk, S side of a view, P = S * S, H, W sides of an image, K taps.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.stream import functional
from coupled.stream.view_plan import HUE, JITTERS, ViewPlan, crop_box, portable_exp

_ADJUST = [getattr(functional, f"adjust_{name}_") for name in JITTERS]
_CPU_CHUNK = 3 * 2**16  # float32 values: 0.75 MiB, so that a chunk stays in a usual second-level cache
_GPU_CHUNK = 2**28


def augment(images_B3HW: Tensor, plan: ViewPlan, size: int) -> Tensor:
    """The views of uint8 images -> float32 [V, B, 3, S, S] in [0, 1], on the images' device.

    A view depends on its image and its plan alone, bit for bit: not on its neighbours in the batch, the threads or the
    device. Crop and colours follow torchvision's kernels for tensors, the blur SimCLR's (Chen et al. 2020), whose
    kernel covers about a tenth of the view.
    """
    batch, _, height, width = images_B3HW.shape
    device = images_B3HW.device
    work_N6, factors_N4 = _work(plan)
    sort_N = np.lexsort([*work_N6.T[::-1], *(work_N6[:, :4] == HUE).T])  # hue takes longest: keep its slices together
    work_N6, number_N = work_N6[sort_N], torch.from_numpy(sort_N)
    parts_BV = (crop_box(plan, height, width), plan.flip_BV, plan.blur_sigma_BV)
    box_N4, flip_N, sigma_N, factors_N4 = (part_N[number_N] for part_N in (*map(_flat, parts_BV), factors_N4))

    places_7N = torch.column_stack([number_N, number_N % batch, flip_N, box_N4]).T.contiguous()
    number_N, image_N, flip_N, top_N, left_N, high_N, wide_N = send(places_7N, device)
    factors_4N1 = send(factors_N4.T.contiguous(), device)[..., None]
    blur_NK = send(_gaussian(sigma_N.numpy(), max(3, size // 10 | 1)), device)

    views_N3SS = torch.empty(len(number_N), 3, size, size, device=device)
    step = max(1, (_CPU_CHUNK if device.type == "cpu" else _GPU_CHUNK) // (3 * size * size))
    with torch.inference_mode():  # each of the many small operations costs a little less; `views` is from outside
        rows = functional.row_taps(top_N, high_N, size, int(box_N4[:, 2].max()))
        columns = functional.column_taps(left_N, wide_N, flip_N, size, int(box_N4[:, 3].max()))
        for start in range(0, len(number_N), step):
            chunk = slice(start, start + step)
            pixels_3nSS = functional.resample(images_B3HW, image_N[chunk], rows.of(chunk), columns.of(chunk))
            _colour_(pixels_3nSS.flatten(2), work_N6[chunk], factors_4N1[:, chunk])
            for blurred, run in _runs(work_N6[chunk, 5]):
                if blurred:
                    pixels_3nSS[:, run] = functional.blur(pixels_3nSS[:, run], blur_NK[chunk][run])
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
    side_B, upright_B = torch.full_like(image_B, side), torch.zeros_like(image_B)
    rows = functional.row_taps(torch.full_like(image_B, (height - side) // 2), side_B, size, side)
    columns = functional.column_taps(torch.full_like(image_B, (width - side) // 2), side_B, upright_B, size, side)
    views_3BSS = functional.resample(images_B3HW, image_B, rows, columns)
    return normalise(views_3BSS.transpose(0, 1).contiguous(), mean, std)


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A CPU tensor on `device`; to a GPU from pinned memory, so that the program does not wait for the copy."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _work(plan: ViewPlan) -> tuple[NDArray[np.int64], Tensor]:
    """What is done with each view: its four jitters (-1: one that changes nothing), grayscale, blur [N, 6]; factors."""
    order_N4 = _flat(plan.order_BV4)
    factors_N4 = torch.stack([_flat(getattr(plan, f"{name}_BV")) for name in JITTERS], dim=1).gather(1, order_N4)
    jitters_N4 = torch.where(factors_N4 == (order_N4 != HUE), -1, order_N4)  # factor 1 changes nothing, for hue 0
    work_N6 = torch.column_stack([jitters_N4, _flat(plan.grayscale_BV), _flat(plan.blur_sigma_BV) > 0])
    return work_N6.numpy(), factors_N4


def _colour_(pixels_3nP: Tensor, work_n6: NDArray[np.int64], factors_4n1: Tensor) -> None:
    for jitters_n, factors_n1 in zip(work_n6.T[:4], factors_4n1, strict=True):
        for jitter, run in _runs(jitters_n):
            if jitter >= 0:
                _ADJUST[jitter](pixels_3nP[:, run], factors_n1[run])
    for grey, run in _runs(work_n6[:, 4]):
        if grey:
            pixels_3nP[:, run] = functional.luma(pixels_3nP[:, run])


def _runs(work_n: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """The slices of consecutive views with the same work, each after that work."""
    borders = np.flatnonzero(work_n[1:] != work_n[:-1]) + 1
    for start, end in pairwise([0, *borders.tolist(), len(work_n)]):
        yield int(work_n[start]), slice(start, end)


def _gaussian(sigma_N: NDArray[np.float32], taps: int) -> Tensor:
    """Weights of a Gaussian blur that sum to 1, float32 [N, K]; where sigma is 0, those of some blur."""
    distance_K = np.arange(taps) - taps // 2
    scaled_NK = distance_K / np.where(sigma_N > 0, sigma_N, 1).astype(np.float64)[:, None]
    weights_KN = portable_exp(scaled_NK**2 * -0.5).T
    total_N = sum(weights_KN)  # one after the other: the order in which NumPy sums may depend on the shape
    return torch.from_numpy(np.ascontiguousarray((weights_KN / total_N).T, dtype=np.float32))


def _flat(part_BV: Tensor) -> Tensor:
    return part_BV.transpose(0, 1).flatten(0, 1)
