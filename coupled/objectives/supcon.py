"""Supervised contrastive learning, SCL: all views of the anchor's class are positives (arXiv 2004.11362)."""

from typing import Literal

from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import (
    AnchorLosses,
    check_temperature,
    itself,
    log_sum_exp,
    mean_over,
    mean_over_counted,
    nearest_places,
    same_class,
    scores,
)
from coupled.objectives._blocks import in_blocks


def check(*, temperature: float, num_positives: int | None = None, **_others: object) -> None:
    """Raise ValueError unless the temperature is above 0 and `num_positives` is at least 1 or None."""
    check_temperature(temperature=temperature)
    if num_positives is not None and num_positives < 1:
        raise ValueError(f"num_positives: {num_positives} is not allowed; give a number of at least 1, or null for all")


def needs(**_options: object) -> Needs:
    """Declare the projections of this process and of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


@in_blocks
def per_anchor(
    inputs: Inputs, *, temperature: float, variant: Literal["out", "in"] = "out", num_positives: int | None = None
) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    scores_AM = scores(inputs, temperature)
    others_AM = ~itself(inputs)
    positives_AM = same_class(inputs) & others_AM
    if num_positives is not None:
        positives_AM = nearest_places(inputs, positives_AM, num_positives, own_image="first")
    pull_A = mean_over(scores_AM, positives_AM) if variant == "out" else _log_mean_exp(scores_AM, positives_AM)
    # with only one other row the loss is 0 for all projections
    rows = scores_AM.shape[1]
    counted_A = positives_AM.any(1) & (rows > 2)
    return AnchorLosses(log_sum_exp(scores_AM, others_AM) - pull_A, counted_A)


def supcon(
    inputs: Inputs, *, temperature: float, variant: Literal["out", "in"] = "out", num_positives: int | None = None
) -> Loss:
    """Return the supervised contrastive loss (SCL): all views of the anchor's class are positives.

        out: -mean_{p in P(i)} s_ip/tau + log sum_{a != i} exp(s_ia/tau), mean over anchors i
        in:  -log mean_{p in P(i)} exp(s_ip/tau) + log sum_{a != i} exp(s_ia/tau), mean over anchors i

    `variant` "out" takes the mean over positives outside the logarithm, "in" inside; "in" is never above "out". P(i)
    are all views of i's class except i, tau is the temperature, s_ia the cosine similarity. An anchor without positives
    is left out, and so are the two views of an image that is alone in the batch.

    `num_positives` limits the size of P(i). It takes first the other views of i's image, then the views of the images
    of its class that follow in the global batch (`nearest_places`). The choice depends only on the order of the global
    batch, so it is the same for every number of processes and changes every epoch. The denominator does not change.
    With two views and `num_positives` 1 the loss is NT-Xent.

    Args:
        inputs: reads "projection" (unit norm) of this process [V, B, P] and of the global batch [V, G, P], and the
            labels.
        temperature: temperature tau, above 0.
        variant: "out" or "in", the mean outside or inside the logarithm.
        num_positives: largest number of positives of an anchor; None: all.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if the temperature is not from 1e-6 to 1e6, or `num_positives` is below 1; raised when the settings
            are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.tensor([0, 0, 1])
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(supcon(inputs, temperature=1.0).mean), 4)
        1.3493

    Source: arXiv 2004.11362, eq. 2 (out) and 3 (in). "out" agrees with pytorch-metric-learning's `SupConLoss`.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature, variant=variant, num_positives=num_positives))


def _log_mean_exp(scores_AM: Tensor, mask_AM: Tensor) -> Tensor:
    """Return the log of the mean of exp(score) over the mask: [A]; undefined over an empty mask."""
    return log_sum_exp(scores_AM, mask_AM) - mask_AM.sum(1, dtype=scores_AM.dtype).clamp(min=1).log()
