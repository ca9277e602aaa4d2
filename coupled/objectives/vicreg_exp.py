"""VICReg-exp: VICReg with log-sum-exp in place of squares, between VICReg and SimCLR (arXiv 2206.02574).

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


def vicreg_exp(
    inputs: Inputs,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    covariance_temperature: float = 0.5,
) -> Loss:
    """Return the VICReg-exp loss: VICReg with log-sum-exp in place of squared covariances.

        invariance * MSE(z, z') + variance * (v(z) + v(z')) / 2 + covariance * (c(z) + c(z'))

    v is that of `vicreg`. c is the mean over dimensions i of log sum_{j != i} exp(C_ij / covariance_temperature); C is
    the covariance of dimensions over the global batch. With more than two views the loss is the mean over all pairs of
    views. The projections are not normalised. Every anchor counts.

    Args:
        inputs: reads "unnormalised" projections of the global batch [V, G, P]; labels are not read.
        invariance: weight of the squared difference of two views, at least 0.
        variance: weight of v, the penalty on standard deviations of dimensions below 1, at least 0.
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
        >>> round(float(vicreg_exp(inputs).mean), 4)
        -2.6667

    Source: arXiv 2206.02574, eq. 11 and 12. The paper's weights and temperature are not public.
    """

    def of_pair(one_GP: Tensor, other_GP: Tensor) -> Tensor:
        apart = (one_GP - other_GP).square().mean()
        low = (low_deviation(one_GP) + low_deviation(other_GP)) / 2
        alike = sum(log_sum_exp_of_covariances(x_GP, covariance_temperature) for x_GP in (one_GP, other_GP))
        return invariance * apart + variance * low + covariance * alike

    return mean_over_pairs_of_views(inputs, "unnormalised", of_pair)
