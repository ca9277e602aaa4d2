"""NT-Xent, the objective of SimCLR: find the other view of an image among all views (arXiv 2002.05709)."""

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import (
    AnchorLosses,
    Similarity,
    check_temperature,
    contrast,
    itself,
    mean_over_counted,
    same_image,
    scores,
)

check = check_temperature


def needs(**_options: object) -> Needs:
    """Own projections against those of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


def per_anchor(inputs: Inputs, *, temperature: float, similarity: Similarity = "cosine") -> AnchorLosses:
    """The losses of the own anchors, before the mean."""
    same_image_AM = same_image(inputs)
    return contrast(
        scores(inputs, temperature, similarity),
        positives_AM=same_image_AM & ~itself(inputs),
        negatives_AM=~same_image_AM,
        positive_in_denominator=True,
    )


def nt_xent(inputs: Inputs, *, temperature: float, similarity: Similarity = "cosine") -> Loss:
    """-s_ip/tau + log sum_{a != i} exp(s_ia/tau), mean over anchors i; p is the other view of i's image.

    s_ia is the cosine similarity of two views, or its square or absolute value, tau the temperature. With more than two
    views the first term is the mean over the other views of the image. An anchor whose image is alone in the batch has
    no negatives and is left out.

    Source: arXiv 2002.05709, eq. 1; the other similarities: SimCLR-sq and -abs of arXiv 2206.02574. Agrees with
    pytorch-metric-learning's `NTXentLoss`.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature, similarity=similarity))
