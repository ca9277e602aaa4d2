"""NSCL, negatives-only supervised: DCL whose negatives are the images of other classes only (Luthra et al. 2025)."""

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

check = check_temperature


def needs(**_options: object) -> Needs:
    """Own projections against those of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


def per_anchor(inputs: Inputs, *, temperature: float, positive_in_denominator: bool = False) -> AnchorLosses:
    """The losses of the own anchors, before the mean."""
    return contrast(
        scores(inputs, temperature),
        positives_AM=same_image(inputs) & ~itself(inputs),
        negatives_AM=~same_class(inputs),
        positive_in_denominator=positive_in_denominator,
    )


def nscl(inputs: Inputs, *, temperature: float, positive_in_denominator: bool = False) -> Loss:
    """-s_ip/tau + log sum_{a: y_a != y_i} exp(s_ia/tau), mean over anchors i; p is the other view of i's image.

    s_ia is the cosine similarity of two views, y the labels, tau the temperature. With more than two views the first
    term is the mean over the other views of the image. `positive_in_denominator` adds them to the denominator. An
    anchor without an image of another class in the batch has no negatives and is left out, with or without that option.

    Source: L_NSCL of arXiv 2506.04411 and 2510.08852. With the positive it is what the authors trained as NSCL.
    """
    return mean_over_counted(
        per_anchor(inputs, temperature=temperature, positive_in_denominator=positive_in_denominator)
    )
