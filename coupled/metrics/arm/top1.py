"""Top-1 accuracy of the classifier of an arm."""

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Labels, Matrix
from coupled.metrics.arm._logits import labelled_logits, top_accuracy

SEES = "logits"
DETAILS = ("classifier",)
RANGE = (0.0, 1.0)
INVARIANCES = ("scale", "row_scale", "row_shift", "image_order")


def top1(logits: Matrix, labels: Labels) -> float:
    """Return the top-1 accuracy of logits.

        mean over n of [argmax_c l_nc = y_n]

    l are the logits and y is the label. In a tie the lowest class wins.

    Args:
        logits: rows [N, C], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        labels: the class of each row [N], 0 to C - 1; an array, a list, a tensor, or an iterable of blocks.

    Returns:
        The share of images whose class has the highest logit, between 0 and 1.

    Raises:
        ValueError: if logits are not 2-D, have no rows or a value that is not finite, or if the labels are not integers
            from 0 to C - 1, one per row.

    Example:
        >>> top1([[2.0, 1.0], [0.0, 1.0]], [0, 0])
        0.5

    Source: torch's `argmax`; the accuracy of the ImageNet challenge, arXiv 1409.0575.
    """
    (measured,) = values(labelled_logits(logits, labels)).values()
    return measured.value


def values(images: Labelled) -> dict[str, Measured]:
    """Return the accuracy of the arm's classifier."""
    return {"classifier": Measured(top_accuracy(images, 1))}
