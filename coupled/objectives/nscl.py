"""NSCL, negatives-only supervised: DCL with negatives from other classes only (Luthra et al. 2025)."""

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import (
    AnchorLosses,
    check_temperature,
    contrast,
    itself,
    mean_over_counted,
    same_class,
    same_image,
    scores,
)
from coupled.objectives._blocks import in_blocks

check = check_temperature


def needs(**_options: object) -> Needs:
    """Declare the projections of this process and of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


@in_blocks
def per_anchor(inputs: Inputs, *, temperature: float, positive_in_denominator: bool = False) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    return contrast(
        scores(inputs, temperature),
        positives_AM=same_image(inputs) & ~itself(inputs),
        negatives_AM=~same_class(inputs),
        positive_in_denominator=positive_in_denominator,
    )


def nscl(inputs: Inputs, *, temperature: float, positive_in_denominator: bool = False) -> Loss:
    """Return the negatives-only supervised contrastive loss: DCL with negatives from other classes only.

        -s_ip/tau + log sum_{a: y_a != y_i} exp(s_ia/tau), mean over anchors i

    p is the other view of i's image, s_ia is the cosine similarity of two views, y are the labels, tau is the
    temperature. With more than two views the first term is the mean over the other views of the image.
    `positive_in_denominator` adds them to the denominator. An anchor without an image of another class in the batch has
    no negatives and is left out, with or without that option.

    Args:
        inputs: reads "projection" (unit norm) of this process [V, B, P] and of the global batch [V, G, P], and the
            labels.
        temperature: temperature tau, above 0.
        positive_in_denominator: add the positives to the denominator.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if the temperature is not from 1e-6 to 1e6; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.tensor([0, 0, 1])
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(nscl(inputs, temperature=1.0).mean), 4)
        -0.0758

    Source: L_NSCL of arXiv 2506.04411 and 2510.08852. The authors' public training code has the positive in the
    denominator.
    """
    return mean_over_counted(
        per_anchor(inputs, temperature=temperature, positive_in_denominator=positive_in_denominator)
    )
