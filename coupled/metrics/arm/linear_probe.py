"""Linear probe: a linear classifier on the frozen representation of train, accuracy on test.

Source: `regularised` is scikit-learn's logistic regression; `paper` is the protocol of arXiv 2510.08852 with the rate
of its authors' public code.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._probes import accuracy, chosen, shuffled_by_class
from coupled.metrics.undefined import Undefined

SEES = "classifier"
DETAILS = ("regularised", "paper")
RANGE = (0.0, 1.0)

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)  # scikit-learn's C
PAPER_STEPS, PAPER_RATE = 300, 3e-3


def values(train: Labelled, test: Labelled, seed: int) -> dict[str, Measured]:
    """Accuracy by two protocols. Undefined if train has one class only.

    * `regularised`: L2 logistic regression with bias; of `STRENGTHS` that which is best on a held-out fifth of train
      (of each class; of equally good ones the most regularised), then fitted to all of train.
    * `paper`: no bias, no regularisation, 300 full-batch steps of Adam with rate 0.003 on the rows as they are, from
      zero (the authors start at random).
    """
    if len(torch.unique(train.labels_N)) < 2:
        return dict.fromkeys(DETAILS, Measured(Undefined("train has fewer than 2 classes")))
    strength = best_strength(train, seed)
    return {"regularised": Measured(accuracy(train, test, strength)), "paper": Measured(paper_accuracy(train, test))}


def best_strength(train: Labelled, seed: int) -> float:
    """The strength with the highest accuracy on the held-out fifth of train."""
    order_N = shuffled_by_class(train.labels_N.numpy(), seed, "analysis/linear_probe")
    held_out = torch.arange(len(order_N)).remainder(5) == 4
    fitted, scored = (chosen(train, order_N[part.numpy()]) for part in (~held_out, held_out))
    if len(torch.unique(fitted.labels_N)) < 2 or len(scored.labels_N) == 0:
        return 1.0  # too few images to choose
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
