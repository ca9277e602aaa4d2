"""The contrastive loss with a margin: attract views of one class, repel others up to a distance (Hadsell et al. 2006).

A anchors of this process, M rows of the global batch.
"""

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, itself, mean_over, mean_over_counted, same_class, scores
from coupled.objectives._blocks import in_blocks
from coupled.objectives._ranges import above_zero


def check(*, margin: float) -> None:
    """Raise ValueError unless the margin is above 0."""
    above_zero(margin=margin)


def needs(**_options: object) -> Needs:
    """Declare the projections of this process and of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


@in_blocks
def per_anchor(inputs: Inputs, *, margin: float = 1.0) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    squared_AM = (2 - 2 * scores(inputs, temperature=1)).clamp(min=0)
    same_class_AM = same_class(inputs)
    # the root has no gradient at 0; equal projections have no direction in which to repel each other
    apart_AM = squared_AM > 0
    distances_AM = squared_AM.masked_fill(~apart_AM, 1).sqrt() * apart_AM
    losses_AM = squared_AM.where(same_class_AM, (margin - distances_AM).relu().square()) / 2
    return AnchorLosses(mean_over(losses_AM, ~itself(inputs)), (~same_class_AM).any(1))


def hadsell(inputs: Inputs, *, margin: float = 1.0) -> Loss:
    """Return the contrastive loss with a margin: attract views of one class, repel others up to a distance.

        d_ia^2 / 2 if y_a = y_i, else max(0, margin - d_ia)^2 / 2, mean over all rows a except i, then over anchors i

    d_ia = |z_i - z_a| is the distance of two projections at unit norm, at most 2, and y are the labels. All pairs of
    the global batch have the same weight, so with C classes about 1 of C pairs attracts. Pairs of different classes
    that are farther apart than the margin count as 0. Two equal projections of different classes cost margin^2 / 2,
    without a gradient. An anchor without an image of another class in the batch is left out.

    Args:
        inputs: reads "projection" (unit norm) of this process [V, B, P] and of the global batch [V, G, P], and the
            labels.
        margin: distance of unit vectors below which different classes repel, above 0.

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
        >>> round(float(hadsell(inputs).mean), 4)
        0.2667

    Source: Hadsell, Chopra, LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping", eq. 4. There the
    vectors have free lengths; here they have unit norm, as for `triplet`, so the margin has a fixed scale. Each term is
    half the square of that of pytorch-metric-learning's `ContrastiveLoss`.
    """
    return mean_over_counted(per_anchor(inputs, margin=margin))
