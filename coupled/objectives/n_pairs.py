"""N-pairs: one positive of the anchor's class against the images of all other classes (Sohn 2016)."""

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import (
    AnchorLosses,
    check_temperature,
    contrast,
    itself,
    mean_over_counted,
    nearest_places,
    same_class,
    scores,
)
from coupled.objectives._blocks import in_blocks

check = check_temperature


def needs(**_options: object) -> Needs:
    """Declare the projections of this process and of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


@in_blocks
def per_anchor(inputs: Inputs, *, temperature: float) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    same_class_AM = same_class(inputs)
    return contrast(
        scores(inputs, temperature),
        positives_AM=nearest_places(inputs, same_class_AM & ~itself(inputs), 1, own_image="last"),
        negatives_AM=~same_class_AM,
        positive_in_denominator=True,
    )


def n_pairs(inputs: Inputs, *, temperature: float) -> Loss:
    """Return the N-pairs loss: one positive of the anchor's class against the images of all other classes.

        -s_ip/tau + log (exp(s_ip/tau) + sum_{a: y_a != y_i} exp(s_ia/tau)), mean over anchors i

    p is the same view of the next image of i's class in the global batch (after the last comes the first), so one view
    is enough. If i's image is the only one of its class, p is i's other view. s_ia is the cosine similarity of two
    views, y are the labels, tau is the temperature. An anchor without a positive or without a negative is left out.

    Args:
        inputs: reads "projection" (unit norm) of this process [V, B, P] and of the global batch [V, G, P], and the
            labels.
        temperature: temperature tau, above 0.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if the temperature is not from 1e-6 to 1e6; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.tensor([0, 0, 1])
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(n_pairs(inputs, temperature=1.0).mean), 4)
        1.034

    Source: Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", eq. 6, in the form that
    arXiv 2004.11362 compares with. In Sohn's form a batch is one pair of each class, the anchor is compared with one
    image of each other class, and vectors are not normalised but have a penalty on their lengths. Agrees with
    pytorch-metric-learning's `NTXentLoss` with the same pairs.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature))
