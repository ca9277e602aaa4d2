"""Functions of the contrastive objectives: similarities, masks of (anchor, row) pairs, sums over a mask, the mean.

A anchors of this process ("own anchors"), M rows of the global batch, P projection width (see `coupled.objectives`).
With several processes, memory per process is O(A x M), not M x M. No function waits for the device: no shape or branch
depends on values.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from coupled.objectives import Inputs, Loss
from coupled.objectives._ranges import above_zero


class AnchorLosses(NamedTuple):
    """Losses of the own anchors, and which of them count (bool). Where `counted_A` is false, the loss is undefined."""

    losses_A: Tensor
    counted_A: Tensor


def check_temperature(*, temperature: float, **_others: object) -> None:
    """Raise ValueError unless the temperature is in the range of `above_zero`."""
    above_zero(temperature=temperature)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it is float64: exp(1/0.07) overflows float16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


Similarity = Literal["cosine", "square", "absolute"]


def scores(inputs: Inputs, temperature: float, similarity: Similarity = "cosine") -> Tensor:
    """Return the similarities of own anchors with all rows, divided by the temperature: [A, M].

    Projections have unit norm. The similarity of positives and negatives is the cosine, its square or its absolute
    value (SimCLR-sq, SimCLR-abs, DCL-sq and DCL-abs of arXiv 2206.02574). With the square and the absolute value the
    loss is lowest for orthogonal negatives, with the cosine for opposite ones.
    """
    if similarity == "cosine":
        return inner_products(inputs, "projection", temperature)
    cosines_AM = inner_products(inputs, "projection")
    return (cosines_AM.square() if similarity == "square" else cosines_AM.abs()) / temperature


def inner_products(inputs: Inputs, output: str, divisor: float = 1) -> Tensor:
    """Return the inner products of own anchors with all rows of an output, divided by the divisor: [A, M]."""
    own_AP = at_least_float32(inputs.outputs[output]).flatten(0, 1)
    all_MP = at_least_float32(inputs.gathered[output]).flatten(0, 1)
    # the matrix product is the only operation that autocast would run in a lower precision
    with torch.autocast(own_AP.device.type, enabled=False):
        return (own_AP / divisor) @ all_MP.T


def itself(inputs: Inputs) -> Tensor:
    """Return the mask of each anchor's own row: bool [A, M]."""
    rows_A, rows_M = _rows(inputs)
    return rows_A[:, None] == rows_M


def same_image(inputs: Inputs) -> Tensor:
    """Return the mask of pairs of views of one image, the anchor itself included: bool [A, M]."""
    images = len(inputs.labels_G)
    rows_A, rows_M = _rows(inputs)
    return (rows_A % images)[:, None] == rows_M % images


def same_class(inputs: Inputs) -> Tensor:
    """Return the mask of pairs of views of one class, the anchor itself included: bool [A, M]."""
    return inputs.labels_B.repeat(inputs.views)[:, None] == inputs.labels_G.repeat(inputs.views)


def nearest_places(inputs: Inputs, mask_AM: Tensor, count: int, own_image: Literal["first", "last"]) -> Tensor:
    """Return for each anchor the `count` pairs of the mask that follow it in the global batch, or all if fewer.

    The result is bool [A, M]. For view v of image n the order is: the next images of the global batch (after the last
    comes the first), and of each image view v, then v + 1, and so on. The other views of image n come first or last, as
    `own_image` says. The choice is a function of the global batch alone, and is as random as the order of images.
    """
    views, images = inputs.views, len(inputs.labels_G)
    rows_A, rows_M = _rows(inputs)
    images_on_AM = (rows_M % images - rows_A[:, None] % images) % images
    if own_image == "last":
        images_on_AM = (images_on_AM - 1) % images
    steps_AM = images_on_AM * views + (rows_M // images - rows_A[:, None] // images) % views
    steps_AM = steps_AM.masked_fill(~mask_AM, views * images)
    farthest_A1 = steps_AM.sort(1).values[:, : min(count, views * images)][:, -1:]
    return mask_AM & (steps_AM <= farthest_A1)


def _rows(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return the row number of every own anchor [A], and all row numbers [M]."""
    views, images = inputs.views, len(inputs.labels_G)
    rows_VG = torch.arange(views * images, dtype=torch.int32, device=inputs.labels_G.device).view(views, images)
    return rows_VG[:, inputs.first : inputs.first + len(inputs.labels_B)].flatten(), rows_VG.flatten()


def log_sum_exp(scores_AM: Tensor, mask_AM: Tensor) -> Tensor:
    """Return the log of the sum of exp(score) over the mask: [A]. Over an empty mask it is finite but undefined."""
    # logsumexp over an empty set is -inf with a NaN gradient, so an empty row sums over all pairs; the caller leaves
    # that anchor out
    mask_AM = mask_AM | ~mask_AM.any(1, keepdim=True)
    return scores_AM.masked_fill(~mask_AM, -math.inf).logsumexp(1)


def mean_over(scores_AM: Tensor, mask_AM: Tensor) -> Tensor:
    """Return the mean score over the mask: [A]; 0 over an empty mask."""
    return scores_AM.masked_fill(~mask_AM, 0).sum(1) / mask_AM.sum(1).clamp(min=1)


def contrast(
    scores_AM: Tensor, positives_AM: Tensor, negatives_AM: Tensor, *, positive_in_denominator: bool
) -> AnchorLosses:
    """Return -(mean of s_ip over positives p) + log(sum of exp(s_ia) over negatives a, or over both), for each anchor.

    An anchor without a positive or without a negative is not counted.
    """
    denominator_AM = negatives_AM | positives_AM if positive_in_denominator else negatives_AM
    losses_A = log_sum_exp(scores_AM, denominator_AM) - mean_over(scores_AM, positives_AM)
    return AnchorLosses(losses_A, positives_AM.any(1) & negatives_AM.any(1))


def mean_over_counted(anchors: AnchorLosses) -> Loss:
    """Return the mean over the counted anchors; exactly 0 with zero gradient if there is none."""
    counted = anchors.counted_A.sum()
    total = anchors.losses_A.masked_fill(~anchors.counted_A, 0).sum()
    return Loss(total / counted.clamp(min=1), counted, (~anchors.counted_A).sum())
