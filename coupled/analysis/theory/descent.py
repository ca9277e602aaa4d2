"""Gradient descent on the similarities themselves, the dynamics of the a-priori bound of P2 (arXiv 2510.08852).

Sigma [N, N] holds the similarities of N points, each a free variable in [-1, 1]. A step changes the entries of the
batch's points: Sigma <- clip(Sigma - eta G, -1, 1). G is the gradient of the mean over the B anchors i of
log sum_j exp(s_ij / tau), over j != i (CL) or over j of another class (NSCL). The similarity to the positive view has
the same gradient in both losses and is left out. G is made symmetric, so that Sigma stays symmetric.

Why the bound holds here: a row of G is a softmax divided by B tau. The softmaxes of CL and NSCL differ by twice the
share m of the anchor's own class, and m <= e^(2/tau) n / (B - n) for similarities in [-1, 1], n images of the class
in the batch. A softmax is 1/2-Lipschitz. So a step adds at most eta Delta / (tau sqrt B) + eta D / (2 tau^2 B) to the
distance D of the two matrices; making it symmetric and clipping do not increase it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def gradient(similarities_BB: Array, labels_B: Labels, temperature: float, *, same_class: bool) -> Array:
    """The symmetric gradient [B, B]; `same_class`: images of the anchor's class are negatives (CL), or not (NSCL).

    A row without negatives is 0.
    """
    allowed = ~np.eye(len(labels_B), dtype=bool) if same_class else labels_B[:, None] != labels_B
    scores = np.where(allowed, np.exp((similarities_BB - 1) / temperature), 0.0)
    sums = scores.sum(1, keepdims=True)
    rows = np.divide(scores, sums, out=np.zeros_like(scores), where=sums > 0)
    return np.asarray((rows + rows.T) / (2 * temperature * len(labels_B)), float)


def descend(
    start_NN: Array,
    labels_N: Labels,
    *,
    batch: int,
    steps: int,
    lr: float,
    temperature: float,
    generator: np.random.Generator,
) -> Iterator[tuple[Array, Array]]:
    """Yield the similarities of CL and of NSCL before each step and after the last; the arrays are changed in place."""
    pair = start_NN.copy(), start_NN.copy()
    yield pair
    for _ in range(steps):
        chosen = generator.permutation(len(labels_N))[:batch]
        block = np.ix_(chosen, chosen)
        for similarities, same_class in zip(pair, (True, False), strict=True):
            step = lr * gradient(similarities[block], labels_N[chosen], temperature, same_class=same_class)
            similarities[block] = np.clip(similarities[block] - step, -1, 1)
        yield pair


def centred(similarities_NN: Array) -> Array:
    """H Sigma H with H = I - 1 1^T / N: the matrix that CKA correlates."""
    columns = similarities_NN - similarities_NN.mean(0)
    return np.asarray(columns - columns.mean(1, keepdims=True), float)


def off_diagonal(similarities_NN: Array) -> Array:
    """The similarities of all ordered pairs i != j minus their mean: the vector that RSA correlates."""
    pairs = similarities_NN[~np.eye(len(similarities_NN), dtype=bool)]
    return np.asarray(pairs - pairs.mean(), float)


def correlation(one: Array, other: Array) -> float:
    """The cosine of two arrays as vectors."""
    return float((one * other).sum() / np.sqrt((one * one).sum() * (other * other).sum()))
