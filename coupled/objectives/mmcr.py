"""Maximum manifold capacity: make the mean views of the images span all directions (arXiv 2303.03307).

V views, G images of the global batch, P projection width.
"""

import torch
from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._batches import of_all_views
from coupled.objectives._ranges import not_negative

check = not_negative


def needs(**_options: object) -> Needs:
    """Declare the projections of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


def mmcr(inputs: Inputs, *, compression: float = 0.0) -> Loss:
    """Return the loss of maximum manifold capacity representations: spread the mean views of the images.

        -|C|_* + compression * mean over images of |Z_n|_*

    |.|_* is the nuclear norm, the sum of the singular values. Row n of C [G, P] is the mean of the views of image n,
    and Z_n [V, P] are these views, at unit norm. The nuclear norm of C is large if the views of an image agree, because
    its rows are then long, and if the rows of different images are orthogonal; it is at most sqrt(G min(G, P)). The
    second term makes the views of one image agree, which the first one already does; it has no weight in the paper's
    main experiments. Every anchor counts.

    Args:
        inputs: reads "projection" (unit norm) of the global batch [V, G, P]; labels are not read.
        compression: weight of the nuclear norms of the views of single images, at least 0.

    Returns:
        The criterion (scalar, no unit), with every anchor of this process counted.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if `compression` is not from 0 to 1e6; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(mmcr(inputs).mean), 4)
        -3.0

    Source: Yerxa et al. 2023, arXiv 2303.03307, section 3; `compression` is its lambda. The authors' code and lightly's
    `MMCRLoss` have the same formula.
    """

    def of_views(z_VGP: Tensor) -> Tensor:
        loss = -_nuclear_norm(z_VGP.mean(0))
        if compression:
            loss = loss + compression * _nuclear_norm(z_VGP.transpose(0, 1)).mean()
        return loss

    return of_all_views(inputs, "projection", of_views)


def _nuclear_norm(matrices: Tensor) -> Tensor:
    """Return the sum of the singular values of each matrix of a batch [..., rows, columns]."""
    return torch.linalg.svdvals(matrices).sum(-1)
