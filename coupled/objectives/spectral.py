"""The spectral contrastive loss: its minimum factorises the augmentation graph (arXiv 2106.04156)."""

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import (
    AnchorLosses,
    inner_products,
    itself,
    mean_over,
    mean_over_counted,
    same_image,
)
from coupled.objectives._blocks import in_blocks


def needs(**_options: object) -> Needs:
    """Declare the projections of this process and of the global batch, before normalisation."""
    return Needs(outputs=("unnormalised",), gathered=("unnormalised",))


@in_blocks
def per_anchor(inputs: Inputs) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    products_AM = inner_products(inputs, "unnormalised")
    same_image_AM = same_image(inputs)
    positives_AM, negatives_AM = same_image_AM & ~itself(inputs), ~same_image_AM
    losses_A = mean_over(products_AM.square(), negatives_AM) - 2 * mean_over(products_AM, positives_AM)
    return AnchorLosses(losses_A, positives_AM.any(1) & negatives_AM.any(1))


def spectral(inputs: Inputs) -> Loss:
    """Return the spectral contrastive loss, whose minimum factorises the augmentation graph.

        -2 z_i.z_p + mean over a of (z_i.z_a)^2, mean over anchors i

    p is the other view of i's image, and a are all views of other images. With more than two views the first term is
    the mean over the other views. The projections are not normalised: in the paper's definition a norm is free and
    represents the degree of a view in the augmentation graph. The authors' code shortens them to a chosen length. An
    anchor whose image is alone in the batch has no negatives and is left out.

    Args:
        inputs: reads "unnormalised" projections of this process [V, B, P] and of the global batch [V, G, P]; labels
            are not read.

    Returns:
        The mean over the counted anchors of this process (scalar, no unit), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"unnormalised": z}, {"unnormalised": z}, labels, labels)
        >>> round(float(spectral(inputs).mean), 4)
        -2.0

    Source: arXiv 2106.04156, eq. 6.
    """
    return mean_over_counted(per_anchor(inputs))
