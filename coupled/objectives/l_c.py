"""The sample-contrastive criterion alone: make different images orthogonal (arXiv 2206.02574).

G images of the global batch, P projection width.
"""

from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._batches import mean_over_pairs_of_views, squared_off_diagonal


def needs(**_options: object) -> Needs:
    """Declare the projections of the global batch before normalisation."""
    return Needs(outputs=("unnormalised",), gathered=("unnormalised",))


def l_c(inputs: Inputs) -> Loss:
    """Return the sample-contrastive criterion alone, which makes different images orthogonal.

        sum_{i != j} (z_i.z_j)^2 over images i, j of one view, mean over views

    The projections of the global batch are neither centred nor normalised. The criterion alone does not align views,
    and its minimum is reached if all projections are 0. It serves for comparison with `l_nc`.
    Every anchor counts. Memory is G x G on every process.

    Args:
        inputs: reads "unnormalised" projections of the global batch [V, G, P]; labels are not read.

    Returns:
        The criterion (scalar, no unit), with every anchor of this process counted.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.

    Example:
        >>> import torch
        >>> z = torch.ones(2, 3, 1)  # two views of three images, one dimension
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"unnormalised": z}, {"unnormalised": z}, labels, labels)
        >>> round(float(l_c(inputs).mean), 4)
        6.0

    Source: arXiv 2206.02574, definition 3.2. For every view L_nc + sum_j |k_j|^4 = L_c + sum_i |z_i|^4 (theorem 3.3).
    """
    return mean_over_pairs_of_views(
        inputs, "unnormalised", lambda one_GP, other_GP: (criterion(one_GP) + criterion(other_GP)) / 2
    )


def criterion(x_GP: Tensor) -> Tensor:
    """Return the criterion of one view [G, P], one image per row: a scalar."""
    return squared_off_diagonal(x_GP @ x_GP.T)
