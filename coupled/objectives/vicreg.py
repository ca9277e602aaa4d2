"""VICReg: align views, keep the variance of each dimension up and decorrelate dimensions (arXiv 2105.04906).

G images of the global batch, P projection width.
"""

from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._batches import covariance as covariance_of
from coupled.objectives._batches import low_deviation, mean_over_pairs_of_views, squared_off_diagonal
from coupled.objectives._ranges import not_negative

check = not_negative


def needs(**_options: object) -> Needs:
    """Declare the projections of the global batch before normalisation."""
    return Needs(outputs=("unnormalised",), gathered=("unnormalised",))


def vicreg(inputs: Inputs, *, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0) -> Loss:
    """Return the VICReg loss: align views, keep the variance of each dimension up and decorrelate dimensions.

        invariance * MSE(z, z') + variance * (v(z) + v(z')) / 2 + covariance * (c(z) + c(z'))

    v is the mean over dimensions of relu(1 - sqrt(var + 1e-4)). c is the sum of the squared covariances of different
    dimensions, divided by P. Variances and covariances are over the global batch with G - 1 in the denominator. With
    more than two views the loss is the mean over all pairs of views. The projections are not normalised. Every anchor
    counts.

    Args:
        inputs: reads "unnormalised" projections of the global batch [V, G, P]; labels are not read.
        invariance: weight of the squared difference of two views, at least 0.
        variance: weight of v, the penalty on standard deviations of dimensions below 1, at least 0.
        covariance: weight of the squared covariances of different dimensions, at least 0.

    Returns:
        The criterion (scalar, no unit), with every anchor of this process counted.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if a weight is not from 0 to 1e6; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, 1], [1, -1], [-1, 1]]).repeat(2, 1, 1)  # two equal views of three images
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"unnormalised": z}, {"unnormalised": z}, labels, labels)
        >>> round(float(vicreg(inputs).mean), 4)
        0.8889

    Source: arXiv 2105.04906, eq. 6, with its weights and the factor 1/2 of the authors' code. Agrees with
    pytorch-metric-learning's `VICRegLoss`.
    """

    def of_pair(one_GP: Tensor, other_GP: Tensor) -> Tensor:
        apart = (one_GP - other_GP).square().mean()
        low = (low_deviation(one_GP) + low_deviation(other_GP)) / 2
        return invariance * apart + variance * low + covariance * (_correlation(one_GP) + _correlation(other_GP))

    return mean_over_pairs_of_views(inputs, "unnormalised", of_pair)


def _correlation(x_GP: Tensor) -> Tensor:
    return squared_off_diagonal(covariance_of(x_GP)) / x_GP.shape[1]
