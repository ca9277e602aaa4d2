"""Shared parts of the linear probes. Shape letters: N train images, M test images, D width."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from coupled.metrics.arm import Labelled
from coupled.stream.seeds import permutation, philox

STEPS = 5000  # maximum of L-BFGS steps; scikit-learn warns if they are not enough
# Bound of the gradient's entries. At scikit-learn's 1e-4 the accuracy depends on the number of threads: it changed
# by up to 4 of 3 000 images.
TOLERANCE = 1e-6


class Probe(NamedTuple):
    """L2-regularised logistic regression with bias, fitted on train.

    The mean of train is subtracted from all rows, and they are divided by one number, so that the features of train
    have variance 1 on average. Then C has the same meaning for every arm, and the geometry is unchanged.
    """

    model: LogisticRegression
    centre_D: Tensor
    size: float

    def inputs(self, rows_MD: Tensor) -> NDArray[np.float64]:
        """Return rows as the model takes them."""
        scaled: NDArray[np.float64] = ((rows_MD.double() - self.centre_D) / self.size).numpy()
        return scaled


def fitted(train: Labelled, strength: float) -> Probe:
    """Fit the probe; `strength` is scikit-learn's C."""
    rows_ND = train.rows_ND.double()
    centre_D = rows_ND[0] + (rows_ND - rows_ND[0]).mean(dim=0)
    size = float((rows_ND - centre_D).square().mean().sqrt()) or 1.0  # 1 for constant features
    probe = Probe(LogisticRegression(C=strength, max_iter=STEPS, tol=TOLERANCE), centre_D, size)
    probe.model.fit(probe.inputs(train.rows_ND), train.labels_N.numpy())
    return probe


def accuracy(train: Labelled, test: Labelled, strength: float) -> float:
    """Accuracy on test of the probe fitted on train."""
    probe = fitted(train, strength)
    return float(probe.model.score(probe.inputs(test.rows_ND), test.labels_N.numpy()))


def log_probabilities(train: Labelled, test: Labelled, strength: float) -> Tensor:
    """Return the log-probabilities [M, C] of the classes of train, ascending, by the probe fitted on train."""
    probe = fitted(train, strength)
    return torch.from_numpy(probe.model.predict_log_proba(probe.inputs(test.rows_ND)))


def shuffled_by_class(labels_N: NDArray[np.int64], seed: int, name: str, *counters: int) -> NDArray[np.int64]:
    """Return indices of the images [N], class after class, each class in a random order of the generator `name`."""
    order_N = permutation(len(labels_N), philox(seed, name, *counters))
    return order_N[np.argsort(labels_N[order_N], kind="stable")]


def chosen(images: Labelled, places: NDArray[np.int64]) -> Labelled:
    """Return the images at these indices."""
    return Labelled(images.rows_ND[places], images.labels_N[places])
