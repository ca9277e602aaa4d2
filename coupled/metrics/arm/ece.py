"""Expected calibration error of the classifier of an arm."""

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Labels, Matrix
from coupled.metrics.arm._logits import BINS, calibration_error, labelled_logits, reliability
from coupled.metrics.pair._arrays import check_at_least

SEES = "logits"
DETAILS = ("classifier",)
RANGE = (0.0, 1.0)
INVARIANCES = ("row_shift", "image_order")


def ece(logits: Matrix, labels: Labels, *, bins: int = BINS) -> float:
    """Return the expected calibration error of logits: how far confidence is from accuracy.

        sum_k (N_k / N) |accuracy_k - confidence_k|

    The confidence of an image is the largest softmax probability. Bin k of K has the N_k images with a confidence in
    ((k - 1) / K, k / K]; accuracy_k and confidence_k are their means. Empty bins count as 0.

    Args:
        logits: rows [N, C], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        labels: the class of each row [N], 0 to C - 1; an array, a list, a tensor, or an iterable of blocks.
        bins: number of bins of equal width.

    Returns:
        The error, between 0 for perfect calibration and 1.

    Raises:
        ValueError: if logits are not 2-D, have no rows or a value that is not finite, or if the labels are not integers
            from 0 to C - 1, one per row; if bins is less than 1.

    Example:
        >>> round(ece([[0.0, 0.0]] * 4, [0, 0, 0, 1]), 6)
        0.25

    Source: Guo et al. 2017, arXiv 1706.04599, eq. 3, with 15 bins of equal width as in their experiments.
    """
    check_at_least(bins, 1, "bins")
    return values(labelled_logits(logits, labels), bins)["classifier"].value


def values(images: Labelled, bins: int = BINS) -> dict[str, Measured]:
    """Return the calibration error of the arm's classifier."""
    curve = reliability(images.rows_ND.double().softmax(1), images.labels_N, bins)
    return {"classifier": Measured(calibration_error(curve))}
