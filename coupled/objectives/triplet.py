"""The triplet loss: keep positives nearer than negatives by a margin (FaceNet, arXiv 1503.03832).

A anchors of this process, M rows of the global batch.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, itself, mean_over, mean_over_counted, same_class, scores
from coupled.objectives._blocks import in_blocks
from coupled.objectives._ranges import above_zero

Mining = Literal["all", "semi_hard", "batch_hard"]


def check(*, margin: float, **_others: object) -> None:
    """Raise ValueError unless the margin is above 0."""
    above_zero(margin=margin)


def needs(**_options: object) -> Needs:
    """Declare the projections of this process and of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


@in_blocks
def per_anchor(inputs: Inputs, *, margin: float = 0.2, mining: Mining = "all") -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    cosines_AM = scores(inputs, temperature=1)
    same_class_AM = same_class(inputs)
    positives_AM, negatives_AM = same_class_AM & ~itself(inputs), ~same_class_AM
    losses_A = MINED[mining](cosines_AM, positives_AM, negatives_AM, margin)
    return AnchorLosses(losses_A, positives_AM.any(1) & negatives_AM.any(1))


def triplet(inputs: Inputs, *, margin: float = 0.2, mining: Mining = "all") -> Loss:
    """Return the triplet loss: keep positives nearer than negatives by a margin.

        max(0, |z_i - z_p|^2 - |z_i - z_n|^2 + margin), mean over p and n, then over anchors i

    p are all views of i's class except i, n all views of other classes; z has unit norm, so |z_i - z_a|^2 = 2 - 2 s_ia.
    With `mining` "semi_hard" each p has one n: the nearest one that is farther from i than p or, if there is none, the
    farthest n. Without the second rule a collapsed network would have no triplet and no loss. With "batch_hard" each
    anchor has one triplet: the farthest p and the nearest n. An anchor without a positive or without a negative is left
    out. A triplet that satisfies the margin counts as 0.

    Args:
        inputs: reads "projection" (unit norm) of this process [V, B, P] and of the global batch [V, G, P], and the
            labels.
        margin: margin between squared distances of unit vectors, above 0.
        mining: "all" triplets, "semi_hard", or "batch_hard".

    Returns:
        The mean over the counted anchors of this process (scalar, no unit), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if the margin is not from 1e-6 to 1e6; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.tensor([0, 0, 1])
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(triplet(inputs).mean), 4)
        0.0889

    Source: arXiv 1503.03832, eq. 2 and section 3.2 (all anchor-positive pairs; margin 0.2). "batch_hard" is that of
    Hermans et al. 2017, arXiv 1703.07737, eq. 5, there with distances instead of squared distances and without unit
    norm. "all" agrees with pytorch-metric-learning's `TripletMarginLoss`, "batch_hard" with its `BatchHardMiner`.
    """
    return mean_over_counted(per_anchor(inputs, margin=margin, mining=mining))


def _all_triplets(cosines_AM: Tensor, positives_AM: Tensor, negatives_AM: Tensor, margin: float) -> Tensor:
    """Return the mean hinge over all triplets of each anchor, [A], in memory A x M instead of A x M x M.

    A triplet has a loss if the negative's cosine s_n is above the bar s_p - margin / 2; the loss is 2 (s_n - bar).
    The sum over triplets follows from two counts: the negatives above each bar, and the bars below each negative.
    """
    bars_AM = cosines_AM - margin / 2
    with torch.no_grad():
        negatives_sorted = cosines_AM.masked_fill(~negatives_AM, -math.inf).sort(1).values
        bars_sorted = bars_AM.masked_fill(~positives_AM, math.inf).sort(1).values
        rows = cosines_AM.shape[1]
        above_AM = (rows - torch.searchsorted(negatives_sorted, bars_AM.contiguous(), right=True)) * positives_AM
        below_AM = torch.searchsorted(bars_sorted, cosines_AM.contiguous()) * negatives_AM
        triplets_A = positives_AM.sum(1) * negatives_AM.sum(1)
    return 2 * (below_AM * cosines_AM - above_AM * bars_AM).sum(1) / triplets_A.clamp(min=1)


def _semi_hard_triplets(cosines_AM: Tensor, positives_AM: Tensor, negatives_AM: Tensor, margin: float) -> Tensor:
    """Return the mean hinge over the positives of each anchor, each with its semi-hard negative: [A]."""
    with torch.no_grad():
        ascending, order_AM = cosines_AM.masked_fill(~negatives_AM, math.inf).sort(1)
        farther_AM = torch.searchsorted(ascending, cosines_AM.contiguous())  # how many negatives are farther than p
        chosen_AM = order_AM.gather(1, (farther_AM - 1).clamp(min=0))
    hinges_AM = (2 * (cosines_AM.gather(1, chosen_AM) - cosines_AM) + margin).relu()
    return mean_over(hinges_AM, positives_AM)


def _hardest_triplets(cosines_AM: Tensor, positives_AM: Tensor, negatives_AM: Tensor, margin: float) -> Tensor:
    """Return the hinge of the farthest positive and the nearest negative of each anchor: [A]."""
    farthest_A = cosines_AM.masked_fill(~positives_AM, math.inf).amin(1)
    nearest_A = cosines_AM.masked_fill(~negatives_AM, -math.inf).amax(1)
    return (2 * (nearest_A - farthest_A) + margin).relu()


MINED = {"all": _all_triplets, "semi_hard": _semi_hard_triplets, "batch_hard": _hardest_triplets}
