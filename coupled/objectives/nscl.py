"""NSCL, negatives-only supervised: DCL with negatives from other classes only (Luthra et al. 2025).

The options of the labels bridge CL and NSCL: a share of them, noise, and groups of classes.

A anchors of this process, M rows of the global batch.
"""

from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import (
    AnchorLosses,
    check_temperature,
    contrast,
    itself,
    mean_over_counted,
    same_class,
    same_image,
    scores,
)
from coupled.objectives._blocks import in_blocks
from coupled.objectives._ranges import check_labels_seen

# options that are recorded only if they do not have their default
ADDED = ("label_fraction", "label_noise", "label_groups")


def check(
    *,
    temperature: float,
    label_fraction: float = 1.0,
    label_noise: float = 0.0,
    label_groups: int | None = None,
    **_others: object,
) -> None:
    """Raise ValueError unless the temperature is above 0 and the options of the labels are in their ranges."""
    check_temperature(temperature=temperature)
    check_labels_seen(label_fraction, label_noise, label_groups)


def needs(
    *, label_fraction: float = 1.0, label_noise: float = 0.0, label_groups: int | None = None, **_options: object
) -> Needs:
    """Declare the projections of this process and of the global batch, and the labels that the objective sees."""
    return Needs(
        outputs=("projection",),
        gathered=("projection",),
        label_fraction=label_fraction,
        label_noise=label_noise,
        label_groups=label_groups,
    )


@in_blocks
def per_anchor(inputs: Inputs, *, temperature: float, positive_in_denominator: bool = False) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    same_image_AM = same_image(inputs)
    return contrast(
        scores(inputs, temperature),
        positives_AM=same_image_AM & ~itself(inputs),
        negatives_AM=~(same_image_AM | _known_same_class(inputs)),
        positive_in_denominator=positive_in_denominator,
    )


def nscl(
    inputs: Inputs,
    *,
    temperature: float,
    positive_in_denominator: bool = False,
    label_fraction: float = 1.0,
    label_noise: float = 0.0,
    label_groups: int | None = None,
) -> Loss:
    """Return the negatives-only supervised contrastive loss: DCL with negatives from other classes only.

        -s_ip/tau + log sum_{a: y_a != y_i} exp(s_ia/tau), mean over anchors i

    p is the other view of i's image, s_ia is the cosine similarity of two views, y are the labels, tau is the
    temperature. With more than two views the first term is the mean over the other views of the image.
    `positive_in_denominator` adds them to the denominator. An anchor without an image of another class in the batch has
    no negatives and is left out, with or without that option.

    `label_fraction` is the share of the training images whose labels are known. All others have the label -1 in
    `inputs`, and -1 is never of the same class: all other images are negatives of such an anchor, and such an image is
    a negative of all others. With share 0 the loss is that of `dcl`. The known images are drawn by the seed of the run,
    and those of a smaller share are a subset of those of a larger one, so arms with different shares form a path from
    CL to NSCL: `arms: {cl: dcl, half: {objective: nscl, label_fraction: 0.5}}`.

    `label_noise` is the probability with which a label is replaced by one of the other classes, each equally likely:
    with (C - 1) / C the labels of C classes are random. The labels are those of a run with the same
    `dataset.label_noise`, but only this arm sees them. `label_groups` is a number of groups of classes, drawn by the
    seed; negatives are then of another group: coarse labels. Only `needs` uses these three options.

    Args:
        inputs: reads "projection" (unit norm) of this process [V, B, P] and of the global batch [V, G, P], and the
            labels; -1 is an unknown label.
        temperature: temperature tau, above 0.
        positive_in_denominator: add the positives to the denominator.
        label_fraction: share of the training images whose labels are known, from 0 to 1.
        label_noise: probability with which a label is replaced by another class, from 0 to 1.
        label_groups: number of groups of classes, from 2 to the number of classes; None: the classes themselves.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if the temperature is not from 1e-6 to 1e6, or an option of the labels is out of range; raised when
            the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.tensor([0, 0, 1])
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(nscl(inputs, temperature=1.0).mean), 4)
        -0.0758

    Source: L_NSCL of arXiv 2506.04411 and 2510.08852. The authors' public training code has the positive in the
    denominator.
    """
    return mean_over_counted(
        per_anchor(inputs, temperature=temperature, positive_in_denominator=positive_in_denominator)
    )


def _known_same_class(inputs: Inputs) -> Tensor:
    """Return the mask of pairs whose labels are known and equal: bool [A, M]."""
    return same_class(inputs) & (inputs.labels_B.repeat(inputs.views) >= 0)[:, None]
