"""Top-5 accuracy of the classifier of an arm."""

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Labels, Matrix
from coupled.metrics.arm._logits import labelled_logits, top_accuracy
from coupled.metrics.undefined import Undefined

SEES = "logits"
DETAILS = ("classifier",)
RANGE = (0.0, 1.0)
INVARIANCES = ("scale", "row_scale", "row_shift", "image_order")


def top5(logits: Matrix, labels: Labels) -> float:
    """Return the top-5 accuracy of logits.

        mean over n of [y_n is among the 5 classes with the highest l_nc]

    l are the logits and y is the label. In a tie the lowest class wins.

    Args:
        logits: rows [N, C], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        labels: the class of each row [N], 0 to C - 1; an array, a list, a tensor, or an iterable of blocks.

    Returns:
        The share of images whose class is among the five highest logits, between 0 and 1.
        NaN, whose attribute `reason` says why, for fewer than 6 classes.

    Raises:
        ValueError: if logits are not 2-D, have no rows or a value that is not finite, or if the labels are not integers
            from 0 to C - 1, one per row.

    Example:
        >>> top5([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]] * 2, [4, 5])
        0.5

    Source: the accuracy of the ImageNet challenge, Russakovsky et al. 2015, arXiv 1409.0575.
    """
    (measured,) = values(labelled_logits(logits, labels)).values()
    return measured.value


def values(images: Labelled) -> dict[str, Measured]:
    """Return the accuracy of the arm's classifier."""
    if images.rows_ND.shape[1] < 6:
        return {"classifier": Measured(Undefined("fewer than 6 classes"))}
    return {"classifier": Measured(top_accuracy(images, 5))}
