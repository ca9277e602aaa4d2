"""Predicted probabilities, and what they predict. Shape letters: N images, C classes, K bins."""

from typing import NamedTuple

import torch
from torch import Tensor

from coupled.metrics.arm import Labelled
from coupled.metrics.arm._arrays import Labels, Matrix, labelled

BINS = 15


class Reliability(NamedTuple):
    """Images by confidence, the probability of the predicted class, in bins of equal width; 0 in an empty bin."""

    counts_K: Tensor
    confidences_K: Tensor  # mean confidence
    accuracies_K: Tensor


def labelled_logits(logits: Matrix, labels: Labels) -> Labelled:
    """Return the logits with their labels. Raises ValueError if either is invalid, or a label is not a column."""
    found = labelled(logits, labels, "logits", least=1)
    classes = found.rows_ND.shape[1]
    if len(bad := found.labels_N[(found.labels_N < 0) | (found.labels_N >= classes)]):
        raise ValueError(f"labels: got {int(bad[0])}; expected 0 to {classes - 1}, the columns of logits")
    return found


def top_accuracy(images: Labelled, k: int) -> float:
    """Return the share of images whose class is among the k highest logits; in a tie the lower class is higher."""
    own_N1 = images.rows_ND.gather(1, images.labels_N[:, None])
    lower_NC = torch.arange(images.rows_ND.shape[1]) < images.labels_N[:, None]
    above_N = ((images.rows_ND > own_N1) | ((images.rows_ND == own_N1) & lower_NC)).sum(1)
    return float((above_N < k).double().mean())


def mean_nll(log_probabilities_NC: Tensor, labels_N: Tensor) -> float:
    """Return the mean negative log-probability of the class of each image, in nats."""
    return -float(log_probabilities_NC.gather(1, labels_N[:, None]).mean())


def reliability(probabilities_NC: Tensor, labels_N: Tensor, bins: int = BINS) -> Reliability:
    """Return the reliability curve; bin k has the confidences in ((k - 1) / bins, k / bins]."""
    confidences_N, predicted_N = probabilities_NC.double().max(dim=1)
    place_N = (
        (torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:] < confidences_N[:, None]).sum(1).clamp(max=bins - 1)
    )
    sums_K3 = torch.zeros(bins, 3, dtype=torch.float64)
    hits_N = (predicted_N == labels_N).double()
    sums_K3.index_add_(0, place_N, torch.stack([torch.ones_like(hits_N), confidences_N, hits_N], dim=1))
    counts_K, *others = sums_K3.T
    means = [sums_K / counts_K.clamp(min=1) for sums_K in others]
    return Reliability(counts_K.long(), means[0], means[1])


def calibration_error(curve: Reliability) -> float:
    """Return the expected calibration error of a reliability curve."""
    gaps_K = (curve.accuracies_K - curve.confidences_K).abs()
    return float(curve.counts_K.double() @ gaps_K / curve.counts_K.sum())
