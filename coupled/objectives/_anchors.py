"""What the contrastive objectives share: similarities, masks of (anchor, row) pairs, sums over a mask, the mean.

A own anchors, M rows of the global batch, P projection width (see `coupled.objectives`). Memory is O(A x M), never
M x M in one process of several. Nothing here waits for the device: no shape or branch depends on values.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from coupled.objectives import Inputs, Loss
from coupled.objectives._ranges import above_zero


class AnchorLosses(NamedTuple):
    """Losses of the own anchors, and which of them count (bool). Where `counted_A` is false the loss means nothing."""

    losses_A: Tensor
    counted_A: Tensor


def check_temperature(*, temperature: float, **_others: object) -> None:
    """Raise ValueError unless the temperature is a number above 0, neither tiny nor huge."""
    above_zero(temperature=temperature)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or float64 if it is float64: exp(1/0.07) overflows float16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


Similarity = Literal["cosine", "square", "absolute"]


def scores(inputs: Inputs, temperature: float, similarity: Similarity = "cosine") -> Tensor:
    """Similarities of own anchors with all rows, over the temperature: [A, M]; projections have unit norm.

    The similarity is the cosine, its square or its absolute value, of positives and negatives alike (SimCLR-sq, -abs,
    DCL-sq and -abs of arXiv 2206.02574): with the last two a negative should be orthogonal, not opposite.
    """
    if similarity == "cosine":
        return inner_products(inputs, "projection", temperature)
    cosines_AM = inner_products(inputs, "projection")
    return (cosines_AM.square() if similarity == "square" else cosines_AM.abs()) / temperature


def inner_products(inputs: Inputs, output: str, divisor: float = 1) -> Tensor:
    """Inner products of own anchors with all rows of an output [V, B, P], over the divisor: [A, M]."""
    own_AP = at_least_float32(inputs.outputs[output]).flatten(0, 1)
    all_MP = at_least_float32(inputs.gathered[output]).flatten(0, 1)
    # The product is the one operation here that autocast would run in a lower precision.
    with torch.autocast(own_AP.device.type, enabled=False):
        return (own_AP / divisor) @ all_MP.T


def itself(inputs: Inputs) -> Tensor:
    """The pairs of an anchor with its own row: bool [A, M]."""
    rows_A, rows_M = _rows(inputs)
    return rows_A[:, None] == rows_M


def same_image(inputs: Inputs) -> Tensor:
    """The pairs of views of one image, the anchor itself included: bool [A, M]."""
    images = len(inputs.labels_G)
    rows_A, rows_M = _rows(inputs)
    return (rows_A % images)[:, None] == rows_M % images


def same_class(inputs: Inputs) -> Tensor:
    """The pairs of views of images of one class, the anchor itself included: bool [A, M]."""
    return inputs.labels_B.repeat(inputs.views)[:, None] == inputs.labels_G.repeat(inputs.views)


def nearest_places(inputs: Inputs, mask_AM: Tensor, count: int, own_image: Literal["first", "last"]) -> Tensor:
    """Of each anchor's pairs in the mask the `count` nearest in place, or all if there are fewer: bool [A, M].

    From view v of image n on it is the next images of the global batch (after the last comes the first), of each first
    view v, then v + 1, and so on; the other views of image n itself come before or after all those. So the choice is a
    function of the global batch alone; which images are near is as random as their order is.
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
    """The row of every own anchor [A], and all rows [M]."""
    views, images = inputs.views, len(inputs.labels_G)
    rows_VG = torch.arange(views * images, dtype=torch.int32, device=inputs.labels_G.device).view(views, images)
    return rows_VG[:, inputs.first : inputs.first + len(inputs.labels_B)].flatten(), rows_VG.flatten()


def log_sum_exp(scores_AM: Tensor, mask_AM: Tensor) -> Tensor:
    """log of the sum of exp(score) over the mask: [A]. Over an empty mask the value is finite and means nothing."""
    # A logsumexp over nothing is -inf with a NaN gradient, which only the order of masks would keep from spreading.
    # So an empty row sums over everything; the caller leaves that anchor out.
    mask_AM = mask_AM | ~mask_AM.any(1, keepdim=True)
    return scores_AM.masked_fill(~mask_AM, -math.inf).logsumexp(1)


def mean_over(scores_AM: Tensor, mask_AM: Tensor) -> Tensor:
    """The mean score over the mask: [A]; 0 over an empty mask."""
    return scores_AM.masked_fill(~mask_AM, 0).sum(1) / mask_AM.sum(1).clamp(min=1)


def contrast(
    scores_AM: Tensor, positives_AM: Tensor, negatives_AM: Tensor, *, positive_in_denominator: bool
) -> AnchorLosses:
    """-(mean of s_ip over positives p) + log(sum of exp(s_ia) over negatives a, or over both), for every anchor i.

    An anchor without a positive or without a negative is not counted.
    """
    denominator_AM = negatives_AM | positives_AM if positive_in_denominator else negatives_AM
    losses_A = log_sum_exp(scores_AM, denominator_AM) - mean_over(scores_AM, positives_AM)
    return AnchorLosses(losses_A, positives_AM.any(1) & negatives_AM.any(1))


def mean_over_counted(anchors: AnchorLosses) -> Loss:
    """The mean over the counted anchors; exactly 0 with zero gradient if there is none."""
    counted = anchors.counted_A.sum()
    total = anchors.losses_A.masked_fill(~anchors.counted_A, 0).sum()
    return Loss(total / counted.clamp(min=1), counted, (~anchors.counted_A).sum())
