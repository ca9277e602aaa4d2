"""NT-Xent, the objective of SimCLR: identify the other view of an image among all views (arXiv 2002.05709)."""

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import (
    AnchorLosses,
    Similarity,
    check_temperature,
    contrast,
    itself,
    mean_over_counted,
    same_image,
    scores,
)
from coupled.objectives._blocks import in_blocks

check = check_temperature


def needs(**_options: object) -> Needs:
    """Declare the projections of this process and of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


@in_blocks
def per_anchor(inputs: Inputs, *, temperature: float, similarity: Similarity = "cosine") -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    same_image_AM = same_image(inputs)
    return contrast(
        scores(inputs, temperature, similarity),
        positives_AM=same_image_AM & ~itself(inputs),
        negatives_AM=~same_image_AM,
        positive_in_denominator=True,
    )


def nt_xent(inputs: Inputs, *, temperature: float, similarity: Similarity = "cosine") -> Loss:
    """Return NT-Xent, the loss of SimCLR: identify the other view of an image among all views.

        -s_ip/tau + log sum_{a != i} exp(s_ia/tau), mean over anchors i

    p is the other view of i's image. s_ia is the cosine similarity of two views, or its square or absolute value; tau
    is the temperature. With more than two views the first term is the mean over the other views of the image. An anchor
    whose image is alone in the batch has no negatives and is left out.

    Args:
        inputs: reads "projection" (unit norm) of this process [V, B, P] and of the global batch [V, G, P]; labels
            are not read.
        temperature: temperature tau, above 0.
        similarity: "cosine", or its "square" or "absolute" value.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if the temperature is not from 1e-6 to 1e6; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(nt_xent(inputs, temperature=1.0).mean), 4)
        0.9048

    Source: arXiv 2002.05709, eq. 1. The other similarities are SimCLR-sq and SimCLR-abs of arXiv 2206.02574. Agrees
    with pytorch-metric-learning's `NTXentLoss`.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature, similarity=similarity))
