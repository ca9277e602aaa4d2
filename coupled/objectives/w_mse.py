"""Whitening MSE: whiten each view of the batch, then bring the views together (arXiv 2007.06346).

G images of the global batch, P projection width.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._batches import covariance, of_all_views


def check(*, slices: int, eps: float) -> None:
    """Raise ValueError unless `slices` is at least 1 and `eps` is from 0 to below 1."""
    if slices < 1:
        raise ValueError(f"slices: {slices} is not allowed; give a number of at least 1")
    if not 0 <= eps < 1:
        raise ValueError(f"eps: {eps} is not allowed; give a weight from 0 to below 1")


def needs(**_options: object) -> Needs:
    """Declare the projections of the global batch before normalisation."""
    return Needs(outputs=("unnormalised",), gathered=("unnormalised",))


def w_mse(inputs: Inputs, *, slices: int = 1, eps: float = 1e-4) -> Loss:
    """Return the whitening loss: the distance of two views after each view of the batch has been whitened.

        2 - 2 u.u' with u = w / |w|, w = L^-1 (z - mean of z), L L^T = (1 - eps) cov(z) + eps I, mean over images

    z and z' [G, P] are two views of the global batch, and L is the Cholesky factor of the covariance over the images,
    with G - 1 in the denominator. 2 - 2 u.u' is the squared distance of u and u'. Whitened dimensions have variance 1
    and are uncorrelated, so equal projections do not lower the loss: if all are equal, u is 0 and the loss is 2, as for
    unrelated views. With more than two views the loss is the mean over all pairs of views. It is from 0 to 4.

    With `slices` above 1, the images of the global batch are cut into that many parts of equal size (up to one image),
    in their order, which is random, and each part is whitened separately. Every anchor counts. With P images or fewer
    in a part every batch would be whitened to the same simplex; then no anchor counts, and the run stops: use a larger
    `batch.size`, fewer slices or a smaller `projector.output_dim`.

    Args:
        inputs: reads "unnormalised" projections of the global batch [V, G, P]; labels are not read.
        slices: number of parts of the global batch that are whitened separately, at least 1.
        eps: weight of the identity matrix in the covariance, from 0 to below 1.

    Returns:
        The criterion (scalar, no unit), with every anchor of this process counted.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if `slices` is below 1 or `eps` is not from 0 to below 1; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, 1], [1, -1], [-1, 1]])  # one view of three images
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> views = torch.stack([z, z.roll(1, 0)])  # another view, as if of other images
        >>> round(float(w_mse(Inputs({"unnormalised": views}, {"unnormalised": views}, labels, labels)).mean), 4)
        3.0

    Source: arXiv 2007.06346, eq. 3 to 5, with unit norm after whitening as in its experiments. The authors' code and
    solo-learn's `wmse_loss_func` have the same formula, with eps 0 and parts of 128 or 256 images; the authors' draw
    the parts several times per batch.
    """

    def of_views(z_VGP: Tensor) -> Tensor:
        parts = [[_whitened(part, eps) for part in z_GP.tensor_split(slices)] for z_GP in z_VGP]
        u_VGP = F.normalize(torch.stack([torch.cat(of_view) for of_view in parts]), dim=-1)
        cosines = [(one_GP * other_GP).sum(1).mean() for one_GP, other_GP in itertools.combinations(u_VGP, 2)]
        return 2 - 2 * torch.stack(cosines).mean()

    width = inputs.gathered["unnormalised"].shape[-1]
    return of_all_views(inputs, "unnormalised", of_views, least_images=slices * (width + 1))


def _whitened(z_GP: Tensor, eps: float) -> Tensor:
    """Return one view of a part of the batch, centred and whitened: [G, P]."""
    identity_PP = torch.eye(z_GP.shape[1], dtype=z_GP.dtype, device=z_GP.device)
    # the check of positive definiteness, which would wait for the device, is not needed: a factor of another matrix
    # gives a loss that is not finite, and the run stops
    factor_PP, _ = torch.linalg.cholesky_ex((1 - eps) * covariance(z_GP) + eps * identity_PP)
    return torch.linalg.solve_triangular(factor_PP, (z_GP - z_GP.mean(0)).T, upper=False).T
