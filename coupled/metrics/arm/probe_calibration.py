"""Calibration of the regularised linear probe: negative log-likelihood and expected calibration error on test."""

import torch

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Labels, Matrix, train_and_test
from coupled.metrics.arm._logits import calibration_error, mean_nll, reliability
from coupled.metrics.arm._probes import log_probabilities
from coupled.metrics.arm.linear_probe import best_strength
from coupled.metrics.pair._arrays import check_at_least
from coupled.metrics.undefined import Undefined

SEES = "classifier"
DETAILS = ("nll", "ece")
RANGE = (0.0, float("inf"))
INVARIANCES = ("rotation", "permutation", "scale", "shift")


def probe_calibration(
    train: Matrix, train_labels: Labels, test: Matrix, test_labels: Labels, *, seed: int = 0
) -> dict[str, float]:
    """Return negative log-likelihood and expected calibration error of a linear probe on frozen features.

        nll = mean over n of -log p_n(y_n),  ece = sum_k (N_k / N) |accuracy_k - confidence_k|

    p_n are the probabilities of the `regularised` protocol of `linear_probe`: L2 logistic regression whose strength is
    selected on a held-out fifth of train for its accuracy, not for its calibration. ece has 15 bins of equal width, as
    the metric `ece`.

    Args:
        train: rows [N, D], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        train_labels: the class of each row [N], integers; an array, a list, a tensor, or an iterable of blocks.
        test: rows [M, D].
        test_labels: their classes [M].
        seed: selects the fifth of train on which the regularisation is chosen.

    Returns:
        `nll` in nats, 0 or more, and `ece`, between 0 and 1.
        NaN, whose attribute `reason` says why, if train has only one class, or test a class that train does not have.

    Raises:
        ValueError: if a split is not 2-D or has a value that is not finite, train has fewer than 2 rows or test none,
            their widths differ, or the labels are not integers, one per row; for a negative seed.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(100) % 2
        >>> x = np.random.default_rng(0).normal(size=(100, 4)) + 10 * labels[:, None]
        >>> found = probe_calibration(x, labels, x, labels)
        >>> 0 < found["ece"] < found["nll"] < 1
        True

    Source: Guo et al. 2017, arXiv 1706.04599, eq. 3 and section 2; the probe is scikit-learn's logistic regression.
    """
    check_at_least(seed, 0, "seed")
    found = values(*train_and_test(train, train_labels, test, test_labels), seed)
    return {name: measured.value for name, measured in found.items()}


def values(train: Labelled, test: Labelled, seed: int) -> dict[str, Measured]:
    """Return both values of the probe."""
    found = predictions(train, test, seed)
    if isinstance(found, Undefined):
        return dict.fromkeys(DETAILS, Measured(found))
    curve = reliability(found.rows_ND.exp(), found.labels_N)
    nll = mean_nll(found.rows_ND, found.labels_N)
    return {"nll": Measured(nll), "ece": Measured(calibration_error(curve))}


def predictions(train: Labelled, test: Labelled, seed: int) -> Labelled | Undefined:
    """Return the log-probabilities [M, C] of the classes of train for the test images; labels are their columns."""
    labels_C = torch.unique(train.labels_N)
    unknown_M = test.labels_N[~torch.isin(test.labels_N, labels_C)]
    if len(labels_C) < 2:
        return Undefined("train has fewer than 2 classes")
    if len(unknown_M):
        return Undefined(f"class {int(unknown_M[0])} has no train images")
    found_MC = log_probabilities(train, test, best_strength(train, seed))
    return Labelled(found_MC, torch.searchsorted(labels_C, test.labels_N))
