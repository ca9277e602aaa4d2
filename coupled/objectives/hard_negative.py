"""Contrastive learning with hard negatives: negatives near the anchor weigh more (arXiv 2010.04592).

A anchors of this process, M rows of the global batch.
"""

import math

from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import (
    AnchorLosses,
    check_temperature,
    itself,
    mean_over,
    mean_over_counted,
    same_image,
    scores,
)
from coupled.objectives._blocks import in_blocks
from coupled.objectives._ranges import not_negative


def check(*, temperature: float, beta: float = 1.0, tau_plus: float = 0.1) -> None:
    """Raise ValueError unless the temperature is above 0, `beta` at least 0, and `tau_plus` from 0 to below 1."""
    check_temperature(temperature=temperature)
    not_negative(beta=beta)
    if not 0 <= tau_plus < 1:
        raise ValueError(f"tau_plus: {tau_plus} is not allowed; give a probability from 0 to below 1")


def needs(**_options: object) -> Needs:
    """Declare the projections of this process and of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


@in_blocks
def per_anchor(inputs: Inputs, *, temperature: float, beta: float = 1.0, tau_plus: float = 0.1) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    scores_AM = scores(inputs, temperature)
    same_image_AM = same_image(inputs)
    positives_AM, negatives_AM = same_image_AM & ~itself(inputs), ~same_image_AM
    # all exponentials are relative to the largest score of the anchor: exp(1 / 0.01) overflows float32
    largest_A = scores_AM.detach().masked_fill(itself(inputs), -math.inf).amax(1).clamp(min=-1 / temperature)
    positive_A, sum_A = _sums(scores_AM - largest_A[:, None], positives_AM, negatives_AM, beta)
    negatives_A = negatives_AM.sum(1)
    debiased_A = (sum_A - tau_plus * negatives_A * positive_A / positives_AM.sum(1).clamp(min=1)) / (1 - tau_plus)
    least_A = negatives_A * (-1 / temperature - largest_A).exp()
    losses_A = (positive_A + debiased_A.maximum(least_A)).log() + largest_A - mean_over(scores_AM, positives_AM)
    return AnchorLosses(losses_A, positives_AM.any(1) & negatives_AM.any(1))


def hard_negative(inputs: Inputs, *, temperature: float, beta: float = 1.0, tau_plus: float = 0.1) -> Loss:
    """Return the contrastive loss with hard negatives: NT-Xent in which negatives near the anchor weigh more.

        -s_ip/tau + log (exp(s_ip/tau) + N g_i), mean over anchors i
        g_i = max((h_i - tau_plus exp(s_ip/tau)) / (1 - tau_plus), exp(-1/tau))
        h_i = sum_a exp((1 + beta) s_ia/tau) / sum_a exp(beta s_ia/tau)

    p is the other view of i's image, a are the N views of all other images, s_ia is the cosine similarity of two views,
    tau is the temperature. h_i is the mean of exp(s_ia/tau) under a distribution that prefers similar negatives; with
    `beta` 0 it is the plain mean. Some negatives have the unknown class of the anchor, each with probability
    `tau_plus`; g_i subtracts their estimated part, and is never below its least possible value. With `tau_plus` 0
    nothing is subtracted. `beta` 0 with `tau_plus` 0 is `nt_xent`; `beta` 0 alone is the debiased contrastive loss.

    With more than two views, s_ip/tau in the first term is its mean over the other views of the image; exp(s_ip/tau) is
    their sum in the loss and their mean in g_i. An anchor whose image is alone in the batch has no negatives and is
    left out.

    Args:
        inputs: reads "projection" (unit norm) of this process [V, B, P] and of the global batch [V, G, P]; labels
            are not read.
        temperature: temperature tau, above 0.
        beta: concentration on negatives that are similar to the anchor, at least 0.
        tau_plus: probability that a negative has the class of the anchor, from 0 to below 1.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if the temperature is not from 1e-6 to 1e6, `beta` is not from 0 to 1e6, or `tau_plus` is not from 0
            to below 1; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(hard_negative(inputs, temperature=1.0, beta=0.0, tau_plus=0.0).mean), 4)
        0.9048

    Source: arXiv 2010.04592, eq. 4 with the estimators of section 4.1, and the least value of its code; the paper's
    temperature is the radius of the sphere, and `beta` multiplies s_ia/tau as in the authors' code, whose defaults are
    those here. With `beta` 0 the estimator of arXiv 2007.00224, eq. 7 and 8.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature, beta=beta, tau_plus=tau_plus))


def _sums(scores_AM: Tensor, positives_AM: Tensor, negatives_AM: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return for each anchor the sum of exp(score) over positives, and N h_i, that over negatives with weights."""
    positive_A = scores_AM.masked_fill(~positives_AM, -math.inf).exp().sum(1)
    exponents_AM = scores_AM.masked_fill(~negatives_AM, -math.inf).exp()
    # without a negative softmax would be NaN; such an anchor is left out
    weighed_AM = negatives_AM | ~negatives_AM.any(1, keepdim=True)
    shares_AM = (beta * scores_AM).masked_fill(~weighed_AM, -math.inf).softmax(1)
    return positive_A, negatives_AM.sum(1) * (shares_AM * exponents_AM).sum(1)
