"""Functions of the losses of a whole batch: the mean over pairs of views, covariances, log-sum-exp of covariances.

G images of the global batch, P projection width. A matrix x_GP is one view of the global batch with one image per row
(the transpose of K in arXiv 2206.02574). Such a loss is not a mean over anchors. Every process computes the whole loss
from the gathered batch and counts it with its own anchors, so the mean over processes is the same loss.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from coupled.objectives import Inputs, Loss
from coupled.objectives._anchors import at_least_float32


def mean_over_pairs_of_views(inputs: Inputs, output: str, loss_of_pair: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Return the mean of `loss_of_pair`, a scalar function of two views [G, P] of `output`, over all pairs of views.

    Anchors are counted as in `of_all_views`.
    """

    def mean(views_VGP: Tensor) -> Tensor:
        return torch.stack([loss_of_pair(*pair) for pair in itertools.combinations(views_VGP, 2)]).mean()

    return of_all_views(inputs, output, mean)


def of_all_views(inputs: Inputs, output: str, loss_of_views: Callable[[Tensor], Tensor], least_images: int = 2) -> Loss:
    """Return `loss_of_views`, a scalar function of all views [V, G, P] of `output`, in at least float32.

    All anchors of this process count. With a single view, or fewer than `least_images` images in the global batch, no
    anchor counts.
    """
    views_VGP = at_least_float32(inputs.gathered[output])
    views, images = views_VGP.shape[:2]
    anchors = torch.full((), views * len(inputs.labels_B), dtype=torch.int64, device=views_VGP.device)
    none = torch.zeros_like(anchors)
    if views < 2 or images < least_images:
        return Loss(0 * views_VGP.sum(), none, anchors)
    # autocast would run matrix products in a lower precision
    with torch.autocast(views_VGP.device.type, enabled=False):
        return Loss(loss_of_views(views_VGP), anchors, none)


def covariance(x_GP: Tensor) -> Tensor:
    """Return the covariance of the columns over the rows, with G - 1 in the denominator: [P, P]."""
    centred_GP = x_GP - x_GP.mean(0)
    return centred_GP.T @ centred_GP / (len(x_GP) - 1)


def off_diagonal(square_DD: Tensor, fill: float = 0.0) -> Tensor:
    """Return the square matrix with `fill` on its diagonal."""
    return square_DD.masked_fill(torch.eye(len(square_DD), dtype=torch.bool, device=square_DD.device), fill)


def low_deviation(x_GP: Tensor) -> Tensor:
    """Return the penalty on standard deviations below 1: mean of relu(1 - sqrt(var + 1e-4)) over columns, a scalar.

    Source: v of VICReg, arXiv 2105.04906, eq. 1 and 2.
    """
    return (1 - (x_GP.var(0) + 1e-4).sqrt()).relu().mean()


def squared_off_diagonal(square_DD: Tensor) -> Tensor:
    """Return the sum of the squares off the diagonal: a scalar."""
    return off_diagonal(square_DD).square().sum()


def log_sum_exp_of_covariances(x_GP: Tensor, temperature: float) -> Tensor:
    """Return the mean over columns i of log sum_{j != i} exp(cov_ij / temperature).

    Source: arXiv 2206.02574, eq. 11.
    """
    return off_diagonal(covariance(x_GP) / temperature, fill=-math.inf).logsumexp(1).mean()
