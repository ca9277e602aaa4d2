"""Negative log-likelihood of the classifier of an arm."""

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Labels, Matrix
from coupled.metrics.arm._logits import labelled_logits, mean_nll

SEES = "logits"
DETAILS = ("classifier",)
RANGE = (0.0, float("inf"))
INVARIANCES = ("row_shift", "image_order")


def nll(logits: Matrix, labels: Labels) -> float:
    """Return the mean negative log-likelihood of the labels, in nats.

        mean over n of -log softmax(l_n)_y

    l are the logits and y is the label. It is computed in float64.

    Args:
        logits: rows [N, C], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        labels: the class of each row [N], 0 to C - 1; an array, a list, a tensor, or an iterable of blocks.

    Returns:
        The mean cross-entropy in nats; 0 or more; log C for equal logits.

    Raises:
        ValueError: if logits are not 2-D, have no rows or a value that is not finite, or if the labels are not integers
            from 0 to C - 1, one per row.

    Example:
        >>> round(nll([[0.0, 0.0]], [1]), 6)
        0.693147

    Source: torch's `cross_entropy`; used with calibration by Guo et al. 2017, arXiv 1706.04599, section 2.
    """
    (measured,) = values(labelled_logits(logits, labels)).values()
    return measured.value


def values(images: Labelled) -> dict[str, Measured]:
    """Return the negative log-likelihood of the arm's classifier."""
    return {"classifier": Measured(mean_nll(images.rows_ND.double().log_softmax(1), images.labels_N))}
