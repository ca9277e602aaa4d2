"""NT-Xent, the objective of SimCLR: identify the other view of an image among all views (arXiv 2002.05709)."""

import math
from dataclasses import replace
from typing import Literal

from torch.nn import functional

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import (
    AnchorLosses,
    Similarity,
    at_least_float32,
    check_temperature,
    contrast,
    itself,
    mean_over_counted,
    same_image,
    scores,
)
from coupled.objectives._blocks import in_blocks

check = check_temperature


Normalisation = Literal["embedding", "centred", "dimension"]


def needs(*, normalisation: Normalisation = "embedding", **_options: object) -> Needs:
    """Declare the projections of this process and of the global batch, before normalisation if it is another one."""
    output = "projection" if normalisation == "embedding" else "unnormalised"
    return Needs(outputs=(output,), gathered=(output,))


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


def nt_xent(
    inputs: Inputs,
    *,
    temperature: float,
    similarity: Similarity = "cosine",
    normalisation: Normalisation = "embedding",
) -> Loss:
    """Return NT-Xent, the loss of SimCLR: identify the other view of an image among all views.

        -s_ip/tau + log sum_{a != i} exp(s_ia/tau), mean over anchors i

    p is the other view of i's image. s_ia is the cosine similarity of two views, or its square or absolute value; tau
    is the temperature. With more than two views the first term is the mean over the other views of the image. An anchor
    whose image is alone in the batch has no negatives and is left out.

    `normalisation` "centred" first subtracts from each dimension of each view its mean over the global batch.
    "dimension" then gives each dimension of a view the norm sqrt(G/P) over the batch of G images (P is the width of the
    projection), instead of norm 1 to each embedding. s_ia is then an inner product, and the mean squared norm of an
    embedding is 1.

    Args:
        inputs: reads "projection" (unit norm) of this process [V, B, P] and of the global batch [V, G, P], or
            "unnormalised" for another normalisation than "embedding"; labels are not read.
        temperature: temperature tau, above 0.
        similarity: "cosine", or its "square" or "absolute" value.
        normalisation: "embedding" (norm 1), "centred" (and norm 1), or "dimension".

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

    Source: arXiv 2002.05709, eq. 1. The other similarities are SimCLR-sq and SimCLR-abs of arXiv 2206.02574, the
    other normalisations the variants of its table 1 and eq. 14. Agrees with pytorch-metric-learning's `NTXentLoss`.
    """
    inputs = _normalised(inputs, normalisation)
    return mean_over_counted(per_anchor(inputs, temperature=temperature, similarity=similarity))


def _normalised(inputs: Inputs, normalisation: Normalisation) -> Inputs:
    """Return inputs whose "projection" has this normalisation."""
    if normalisation == "embedding":
        return inputs
    x_VGP = at_least_float32(inputs.gathered["unnormalised"])
    centred_VGP = x_VGP - x_VGP.mean(1, keepdim=True)
    if normalisation == "centred":
        z_VGP = functional.normalize(centred_VGP, dim=-1)
    else:
        z_VGP = functional.normalize(centred_VGP, dim=1) * math.sqrt(x_VGP.shape[1] / x_VGP.shape[2])
    own_VBP = z_VGP[:, inputs.first : inputs.first + len(inputs.labels_B)]
    return replace(inputs, outputs={"projection": own_VBP}, gathered={"projection": z_VGP})
