"""VICReg-ctr: VICReg-exp of the transposed projections, images in place of dimensions (arXiv 2206.02574).

G images of the global batch, P projection width.
"""

from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._batches import log_sum_exp_of_covariances, low_deviation, mean_over_pairs_of_views
from coupled.objectives._ranges import above_zero, not_negative


def check(*, covariance_temperature: float, **weights: float) -> None:
    """Raise ValueError unless the temperature is above 0 and all weights are at least 0."""
    above_zero(covariance_temperature=covariance_temperature)
    not_negative(**weights)


def needs(**_options: object) -> Needs:
    """Declare the projections of the global batch before normalisation."""
    return Needs(outputs=("unnormalised",), gathered=("unnormalised",))


def vicreg_ctr(
    inputs: Inputs,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    covariance_temperature: float = 0.5,
) -> Loss:
    """Return the VICReg-ctr loss: VICReg-exp of the transposed projections, images in place of dimensions.

        invariance * MSE(z, z') + variance * (v(z^T) + v(z'^T)) / 2 + covariance * (c(z^T) + c(z'^T))

    v and c are those of `vicreg_exp`, here over the P coordinates of an image. v prevents small lengths. c pushes
    different images of one view apart, as `dcl` does, by their covariance over coordinates. As in the paper's formula,
    the mean is subtracted from each image, not from each dimension. With more than two views the loss is the mean over
    all pairs of views. The projections are not normalised. Every anchor counts. Memory is G x G on every process.

    Args:
        inputs: reads "unnormalised" projections of the global batch [V, G, P]; labels are not read.
        invariance: weight of the squared difference of two views, at least 0.
        variance: weight of v, the penalty on standard deviations of an image's coordinates below 1, at least 0.
        covariance: weight of c, the term with log-sum-exp, at least 0.
        covariance_temperature: divides the covariances, above 0.

    Returns:
        The criterion (scalar, no unit), with every anchor of this process counted.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if a weight is not from 0 to 1e6, or the temperature is not from 1e-6 to 1e6; raised when the
            settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, 1], [1, -1], [-1, 1]]).repeat(2, 1, 1)  # two equal views of three images
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"unnormalised": z}, {"unnormalised": z}, labels, labels)
        >>> round(float(vicreg_ctr(inputs).mean), 4)
        8.7363

    Source: arXiv 2206.02574, eq. 11 and 13. The paper's weights and temperature are not public.
    """

    def of_pair(one_GP: Tensor, other_GP: Tensor) -> Tensor:
        apart = (one_GP - other_GP).square().mean()
        low = (low_deviation(one_GP.T) + low_deviation(other_GP.T)) / 2
        alike = sum(log_sum_exp_of_covariances(x_GP.T, covariance_temperature) for x_GP in (one_GP, other_GP))
        return invariance * apart + variance * low + covariance * alike

    return mean_over_pairs_of_views(inputs, "unnormalised", of_pair)
