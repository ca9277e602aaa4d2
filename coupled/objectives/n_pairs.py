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

check = check_temperature


def needs(**_options: object) -> Needs:
    """Own projections against those of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


def per_anchor(inputs: Inputs, *, temperature: float) -> AnchorLosses:
    """The losses of the own anchors, before the mean."""
    same_class_AM = same_class(inputs)
    return contrast(
        scores(inputs, temperature),
        positives_AM=nearest_places(inputs, same_class_AM & ~itself(inputs), 1, own_image="last"),
        negatives_AM=~same_class_AM,
        positive_in_denominator=True,
    )


def n_pairs(inputs: Inputs, *, temperature: float) -> Loss:
    """-s_ip/tau + log (exp(s_ip/tau) + sum_{a: y_a != y_i} exp(s_ia/tau)), mean over anchors i.

    p is the same view of the next image of i's class in the global batch (after the last comes the first), so one view
    is enough; i's other view only where i's image is the only one of its class. s_ia is the cosine similarity of two
    views, y the labels, tau the temperature. An anchor without a positive or without a negative is left out.

    Args:
        inputs: reads "projection" of unit norm, own [V, B, P] and of the global batch [V, G, P], and the labels.
        temperature: tau, above 0.

    Returns:
        The mean over the counted own anchors in nats (scalar), how many were counted and how many were left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: by `check`, when the settings are read, for a temperature that is not above 0.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.tensor([0, 0, 1])
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(n_pairs(inputs, temperature=1.0).mean), 4)
        1.034

    Source: Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", eq. 6, in the form that
    arXiv 2004.11362 compares with. There a batch is one pair of each class, the anchor meets one image of each other
    class, and vectors are not normalised but their lengths punished. Agrees with pytorch-metric-learning's
    `NTXentLoss` given the same pairs.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature))
