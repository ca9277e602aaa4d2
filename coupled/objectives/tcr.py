"""Total coding rate: align views and maximise the volume of the batch (arXiv 2201.10000, 2304.03977).

G images of the global batch, P projection width.
"""

import torch
from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._batches import mean_over_pairs_of_views
from coupled.objectives._ranges import above_zero, not_negative


def check(*, invariance: float, eps_squared: float) -> None:
    """Raise ValueError unless eps^2 is above 0 and the weight is at least 0."""
    above_zero(eps_squared=eps_squared)
    not_negative(invariance=invariance)


def needs(**_options: object) -> Needs:
    """Declare the projections of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


def tcr(inputs: Inputs, *, invariance: float = 20.0, eps_squared: float = 0.2) -> Loss:
    """Return the total-coding-rate loss: align views and maximise the volume of the batch.

        invariance * mean of (1 - z.z') - (R(z) + R(z')) / 2
        R(z) = logdet(I + P / (G eps^2) z^T z) / 2

    z and z' [G, P] are two views of the global batch at unit norm; without normalisation R would grow with the scale
    alone. With more than two views the loss is the mean over all pairs of views. Every anchor counts.

    Args:
        inputs: reads "projection" (unit norm) of the global batch [V, G, P]; labels are not read.
        invariance: weight of the cosine distance of two views, at least 0.
        eps_squared: squared distortion of the coding rate, above 0.

    Returns:
        The criterion (scalar, the rate in nats), with every anchor of this process counted.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if `invariance` is not from 0 to 1e6, or `eps_squared` is not from 1e-6 to 1e6; raised when the
            settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(tcr(inputs).mean), 4)
        -2.6876

    Source: R is that of arXiv 2201.10000 (Neural Manifold Clustering and Embedding); the cosine and eps^2 are those of
    the public code of arXiv 2304.03977 (EMP-SSL), which compares with the mean of all views. The weight of that code is
    200 for P = 1024. R is at most P / 2 log(1 + 1 / eps^2), so with few dimensions a large weight causes collapse.
    """

    def of_pair(one_GP: Tensor, other_GP: Tensor) -> Tensor:
        apart = 1 - (one_GP * other_GP).sum(1).mean()
        rates = _coding_rate(one_GP, eps_squared) + _coding_rate(other_GP, eps_squared)
        return invariance * apart - rates / 2

    return mean_over_pairs_of_views(inputs, "projection", of_pair)


def _coding_rate(z_GP: Tensor, eps_squared: float) -> Tensor:
    images, width = z_GP.shape
    identity_PP = torch.eye(width, dtype=z_GP.dtype, device=z_GP.device)
    # det = (det of the Cholesky factor)^2; the matrix is positive definite, so the check, which would wait for the
    # device, is not needed
    factor_PP, _ = torch.linalg.cholesky_ex(identity_PP + width / (images * eps_squared) * z_GP.T @ z_GP)
    return factor_PP.diagonal().log().sum()
