"""Barlow Twins: make the cross-correlation of two views the identity matrix (arXiv 2103.03230).

G images of the global batch, P projection width.
"""

from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._batches import mean_over_pairs_of_views, squared_off_diagonal
from coupled.objectives._ranges import not_negative

check = not_negative


def needs(**_options: object) -> Needs:
    """Declare the projections of the global batch before normalisation."""
    return Needs(outputs=("unnormalised",), gathered=("unnormalised",))


def barlow_twins(inputs: Inputs, *, redundancy: float = 0.0051) -> Loss:
    """Return the Barlow Twins loss: the cross-correlation of two views compared with the identity matrix.

        sum_i (1 - C_ii)^2 + redundancy * sum_{i != j} C_ij^2

    C [P, P] is the correlation of the dimensions of two views: C_ij is the mean over the global batch of z_i z'_j.
    Before that, each dimension of each view is standardised over the batch to mean 0 and variance 1, as batch norm
    does: the variance is biased and 1e-5 is added to it. A constant dimension therefore gives C_ii = 0 and the full
    loss. With more than two views the loss is the mean over all pairs of views. Every anchor counts.

    Args:
        inputs: reads "unnormalised" projections of the global batch [V, G, P]; labels are not read.
        redundancy: weight of the correlations of different dimensions, at least 0.

    Returns:
        The criterion (scalar, no unit), with every anchor of this process counted.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if `redundancy` is not from 0 to 1e6; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, 1], [1, -1], [-1, 1]]).repeat(2, 1, 1)  # two equal views of three images
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"unnormalised": z}, {"unnormalised": z}, labels, labels)
        >>> round(float(barlow_twins(inputs).mean), 4)
        0.0025

    Source: arXiv 2103.03230, eq. 1 and 2; 0.0051 is its lambda. Without the factor 1/40 of the authors' code.
    """

    def of_pair(one_GP: Tensor, other_GP: Tensor) -> Tensor:
        correlation_PP = _standardised(one_GP).T @ _standardised(other_GP) / len(one_GP)
        return (1 - correlation_PP.diagonal()).square().sum() + redundancy * squared_off_diagonal(correlation_PP)

    return mean_over_pairs_of_views(inputs, "unnormalised", of_pair)


def _standardised(x_GP: Tensor) -> Tensor:
    return (x_GP - x_GP.mean(0)) / (x_GP.var(0, correction=0) + 1e-5).sqrt()
