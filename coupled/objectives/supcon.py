"""Supervised contrastive learning, SCL: all views of the anchor's class are positives (arXiv 2004.11362)."""

from typing import Literal

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import (
    AnchorLosses,
    check_temperature,
    itself,
    log_sum_exp,
    mean_over,
    mean_over_counted,
    same_class,
    scores,
)

check = check_temperature


def needs(**_options: object) -> Needs:
    """Own projections against those of the global batch."""
    return Needs(outputs=("projection",), gathered=("projection",))


def per_anchor(inputs: Inputs, *, temperature: float, variant: Literal["out", "in"] = "out") -> AnchorLosses:
    """The losses of the own anchors, before the mean."""
    scores_AM = scores(inputs, temperature)
    others_AM = ~itself(inputs)
    positives_AM = same_class(inputs) & others_AM
    if variant == "out":
        pull_A = mean_over(scores_AM, positives_AM)
    else:
        positives_A = positives_AM.sum(1, dtype=scores_AM.dtype)
        pull_A = log_sum_exp(scores_AM, positives_AM) - positives_A.clamp(min=1).log()
    # With one single other row the loss is 0 whatever the projections are.
    rows = scores_AM.shape[1]
    counted_A = positives_AM.any(1) & (rows > 2)
    return AnchorLosses(log_sum_exp(scores_AM, others_AM) - pull_A, counted_A)


def supcon(inputs: Inputs, *, temperature: float, variant: Literal["out", "in"] = "out") -> Loss:
    """-mean_{p in P(i)} s_ip/tau + log sum_{a != i} exp(s_ia/tau), mean over anchors i (`variant` "out").

    "in" takes the mean inside the logarithm: -log mean_{p in P(i)} exp(s_ip/tau) + log sum_{a != i} exp(s_ia/tau),
    never above "out". P(i) are all views of i's class but i, tau is the temperature, s_ia the cosine similarity. An
    anchor without positives is left out, and so are the two views of an image that is alone in the batch.

    Source: arXiv 2004.11362, eq. 2 (out) and 3 (in). "out" agrees with pytorch-metric-learning's `SupConLoss`.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature, variant=variant))
