"""Shared parts of the linear probes. Shape letters: N train images, M test images, D width."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from coupled.metrics.arm import Labelled
from coupled.stream.seeds import permutation, philox

STEPS = 5000  # maximum of L-BFGS steps; scikit-learn warns if they are not enough


def accuracy(train: Labelled, test: Labelled, strength: float) -> float:
    """Accuracy on test of L2-regularised logistic regression with bias fitted on train; `strength` is scikit-learn's C.

    The mean of train is subtracted from both splits, and both are divided by one number, so that the features of train
    have variance 1 on average. Then C has the same meaning for every arm, and the geometry is unchanged.
    """
    rows_ND = train.rows_ND.double()
    centre_D = rows_ND[0] + (rows_ND - rows_ND[0]).mean(dim=0)
    size = float((rows_ND - centre_D).square().mean().sqrt()) or 1.0  # 1 for constant features
    model = LogisticRegression(C=strength, max_iter=STEPS)
    model.fit(((rows_ND - centre_D) / size).numpy(), train.labels_N.numpy())
    return float(model.score(((test.rows_ND.double() - centre_D) / size).numpy(), test.labels_N.numpy()))


def shuffled_by_class(labels_N: NDArray[np.int64], seed: int, name: str, *counters: int) -> NDArray[np.int64]:
    """Return indices of the images [N], class after class, each class in a random order of the generator `name`."""
    order_N = permutation(len(labels_N), philox(seed, name, *counters))
    return order_N[np.argsort(labels_N[order_N], kind="stable")]


def chosen(images: Labelled, places: NDArray[np.int64]) -> Labelled:
    """Return the images at these indices."""
    return Labelled(images.rows_ND[places], images.labels_N[places])
