"""Linear probe: a linear classifier on the frozen representation of train, accuracy on test."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Labels, Matrix, train_and_test
from coupled.metrics.arm._probes import accuracy, chosen, shuffled_by_class
from coupled.metrics.pair._arrays import check_at_least
from coupled.metrics.undefined import Undefined

SEES = "classifier"
SPLITS = ("train", "test")
DETAILS = ("regularised", "paper")
RANGE = (0.0, 1.0)
INVARIANCES = {
    "regularised": ("rotation", "permutation", "scale", "shift"),
    "paper": ("permutation", "image_order"),
}

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)  # scikit-learn's C
PAPER_STEPS, PAPER_RATE = 300, 3e-3


def linear_probe(
    train: Matrix,
    train_labels: Labels,
    test: Matrix,
    test_labels: Labels,
    *,
    protocol: str = "regularised",
    seed: int = 0,
) -> float:
    """Return the accuracy of a linear classifier on frozen features, by one of two protocols.

    * `regularised`: L2 logistic regression with bias. C, a power of 10 from 0.001 to 1000, is selected on a held-out
      fifth of each class of train (in a tie the strongest regularisation); then the model is fitted on all of train.
    * `paper`: no bias, no regularisation, 300 full-batch steps of Adam with learning rate 0.003 on the unscaled rows,
      starting from zero (the authors start from random weights).

    Args:
        train: rows [N, D], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        train_labels: the class of each row [N], integers; an array, a list, a tensor, or an iterable of blocks.
        test: rows [M, D].
        test_labels: their classes [M].
        protocol: "regularised", scikit-learn's logistic regression, or "paper", that of arXiv 2510.08852.
        seed: selects the fifth of train on which the regularisation is chosen; "paper" uses no random numbers.

    Returns:
        The share of test images that are classified correctly, between 0 and 1.
        NaN, whose attribute `reason` says why, if train has only one class.

    Raises:
        ValueError: if a split is not 2-D or has a value that is not finite, train has fewer than 2 rows or test none,
            their widths differ, or the labels are not integers, one per row; for another protocol or a negative seed.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(100) % 2
        >>> x = np.random.default_rng(0).normal(size=(100, 4)) + 10 * labels[:, None]
        >>> linear_probe(x, labels, x, labels)
        1.0

    Source: `regularised` is scikit-learn's logistic regression; `paper` is the protocol of arXiv 2510.08852 with the
    learning rate of its authors' public code.
    """
    if protocol not in DETAILS:
        raise ValueError(f"protocol: got {protocol!r}; expected one of {', '.join(DETAILS)}")
    check_at_least(seed, 0, "seed")
    learned, scored = train_and_test(train, train_labels, test, test_labels)
    return values(learned, scored, seed, (protocol,))[protocol].value


def values(train: Labelled, test: Labelled, seed: int, protocols: Sequence[str] = DETAILS) -> dict[str, Measured]:
    """Return the accuracy by each protocol."""
    if len(torch.unique(train.labels_N)) < 2:
        return dict.fromkeys(protocols, Measured(Undefined("train has fewer than 2 classes")))
    return {
        protocol: Measured(
            paper_accuracy(train, test) if protocol == "paper" else accuracy(train, test, best_strength(train, seed))
        )
        for protocol in protocols
    }


def best_strength(train: Labelled, seed: int) -> float:
    """The C with the highest accuracy on the held-out fifth of train."""
    order_N = shuffled_by_class(train.labels_N.numpy(), seed, "analysis/linear_probe")
    held_out = torch.arange(len(order_N)).remainder(5) == 4
    fitted, scored = (chosen(train, order_N[part.numpy()]) for part in (~held_out, held_out))
    if len(torch.unique(fitted.labels_N)) < 2 or len(scored.labels_N) == 0:
        return 1.0  # too few images to select C
    return max(STRENGTHS, key=lambda strength: accuracy(fitted, scored, strength))


def paper_accuracy(train: Labelled, test: Labelled) -> float:
    """Accuracy by the protocol `paper`."""
    labels_C, place_N = torch.unique(train.labels_N, return_inverse=True)
    rows_ND = train.rows_ND.float()
    weight_CD = torch.zeros(len(labels_C), rows_ND.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weight_CD], lr=PAPER_RATE)
    for _ in range(PAPER_STEPS):
        optimizer.zero_grad()
        loss: Tensor = cross_entropy(rows_ND @ weight_CD.T, place_N)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found_M = labels_C[(test.rows_ND.float() @ weight_CD.T).argmax(dim=1)]
    return float((found_M == test.labels_N).double().mean())
