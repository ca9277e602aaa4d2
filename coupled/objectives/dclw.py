"""DCLW: DCL whose positives have weights, higher for positives that are far apart (arXiv 2110.06848).

V views, A anchors of this process, M rows of the global batch, G images of the global batch.
"""

import math

import torch
from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import (
    AnchorLosses,
    at_least_float32,
    itself,
    log_sum_exp,
    mean_over,
    mean_over_counted,
    same_image,
    scores,
)
from coupled.objectives._blocks import in_blocks
from coupled.objectives._ranges import above_zero


def check(*, temperature: float, sigma: float = 0.5, **_others: object) -> None:
    """Raise ValueError unless temperature and sigma are above 0."""
    above_zero(temperature=temperature, sigma=sigma)


def needs(**_options: object) -> Needs:
    """Declare the projections of this process and of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


@in_blocks
def per_anchor(inputs: Inputs, *, temperature: float, sigma: float = 0.5, weight_gradient: bool = True) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    cosines_AM = scores(inputs, temperature=1)
    same_image_AM = same_image(inputs)
    positives_AM, negatives_AM = same_image_AM & ~itself(inputs), ~same_image_AM
    # at other pairs the exponential may overflow, and inf * 0 is NaN
    ratios_AM = (cosines_AM.masked_fill(~positives_AM, -math.inf) / sigma - _log_mean(inputs, sigma)).exp()
    weights_AM = 2 - ratios_AM
    if not weight_gradient:
        weights_AM = weights_AM.detach()
    pull_A = mean_over(weights_AM * cosines_AM / temperature, positives_AM)
    losses_A = log_sum_exp(cosines_AM / temperature, negatives_AM) - pull_A
    return AnchorLosses(losses_A, positives_AM.any(1) & negatives_AM.any(1))


def dclw(inputs: Inputs, *, temperature: float, sigma: float = 0.5, weight_gradient: bool = True) -> Loss:
    """Return the weighted decoupled contrastive loss: DCL with higher weights for positives that are far apart.

        -w_ip s_ip/tau + log sum_{a not in {i, p}} exp(s_ia/tau), mean over anchors i
        w_ip = 2 - exp(s_ip/sigma) / (mean over all positive pairs (j, q) of the global batch of exp(s_jq/sigma))

    p is the other view of i's image, s_ia is the cosine similarity of two views, tau is the temperature. The weights
    have mean 1 and are below 2; a positive that is much more similar than the others has a negative weight. With equal
    similarities of all positives, and for large sigma, the loss is that of `dcl`. With more than two views the first
    term is the mean over the other views of the image, and none of them is in the denominator. An anchor whose image
    is alone in the batch has no negatives and is left out.

    The gradient passes through the weights, because they are a part of the loss. With `weight_gradient: false` they are
    constants, as in lightly.

    Args:
        inputs: reads "projection" (unit norm) of this process [V, B, P] and of the global batch [V, G, P]; labels
            are not read.
        temperature: temperature tau, above 0.
        sigma: sigma of the weights, above 0; with a smaller one the weights differ more.
        weight_gradient: let the gradient pass through the weights.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if temperature or sigma is not from 1e-6 to 1e6; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(dclw(inputs, temperature=1.0).mean), 4)
        0.3863

    Source: arXiv 2110.06848, L_DCLW with its negative von-Mises-Fisher weights and sigma 0.5. Has the values of
    lightly's `DCLWLoss`, and with `weight_gradient: false` its gradients.
    """
    anchors = per_anchor(inputs, temperature=temperature, sigma=sigma, weight_gradient=weight_gradient)
    return mean_over_counted(anchors)


def _log_mean(inputs: Inputs, sigma: float) -> Tensor:
    """Return the log of the mean of exp(s/sigma) over all positive pairs of the global batch; 0 without a pair."""
    z_GVP = at_least_float32(inputs.gathered["projection"]).transpose(0, 1)
    with torch.autocast(z_GVP.device.type, enabled=False):
        cosines_GVV = z_GVP @ z_GVP.transpose(1, 2)
    images, views = cosines_GVV.shape[:2]
    if views < 2:
        return cosines_GVV.new_zeros(())
    same_view_VV = torch.eye(views, dtype=torch.bool, device=cosines_GVV.device)
    pairs = images * views * (views - 1)
    return (cosines_GVV / sigma).masked_fill(same_view_VV, -math.inf).flatten().logsumexp(0) - math.log(pairs)
