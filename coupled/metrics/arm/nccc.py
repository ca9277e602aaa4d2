"""Nearest class-centre classifier: centres from train, accuracy on test."""

from torch import Tensor

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Labels, Matrix, train_and_test
from coupled.metrics.arm._classes import Classes, classes

SEES = "classifier"
SPLITS = ("train", "test")
DETAILS = ("euclidean",)
RANGE = (0.0, 1.0)
INVARIANCES = ("rotation", "permutation", "scale", "shift", "image_order")


def nccc(train: Matrix, train_labels: Labels, test: Matrix, test_labels: Labels) -> float:
    """Return the accuracy of the nearest class-centre classifier.

    An image is assigned the class whose mean of train is nearest by Euclidean distance. In a tie the lowest class wins.
    An image of a class that train does not have counts as wrong.

    Args:
        train: rows [N, D], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        train_labels: the class of each row [N], integers; an array, a list, a tensor, or an iterable of blocks.
        test: rows [M, D].
        test_labels: their classes [M].

    Returns:
        The share of test images that are classified correctly, between 0 and 1.

    Raises:
        ValueError: if a split is not 2-D or has a value that is not finite, train has fewer than 2 rows or test none,
            their widths differ, or the labels are not integers, one per row.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(100) % 2
        >>> x = np.random.default_rng(0).normal(size=(100, 4)) + 10 * labels[:, None]
        >>> nccc(x, labels, x, labels)
        1.0

    Source: the evaluation of arXiv 2510.08852; scikit-learn's `NearestCentroid` is the same rule.
    """
    (measured,) = values(*train_and_test(train, train_labels, test, test_labels), seed=0).values()
    return measured.value


def values(train: Labelled, test: Labelled, seed: int) -> dict[str, Measured]:
    """Return the accuracy under the name of its distance."""
    hits_M = nearest_class(train, test.rows_ND) == test.labels_N
    return {"euclidean": Measured(float(hits_M.double().mean()))}


def nearest_class(train: Labelled, rows_MD: Tensor) -> Tensor:
    """Return the class of `train` whose mean is nearest to each row, [M]."""
    found = classes(train)
    return found.labels_C[nearness(found, rows_MD).argmax(dim=1)]


def nearness(found: Classes, rows_MD: Tensor) -> Tensor:
    """Return scores [M, C] of rows and classes; in a row they decrease with the distance from the class mean."""
    # |x - c|^2 is |x|^2 - 2 (x.c - |c|^2 / 2)
    return (rows_MD.double() - found.centre_D) @ found.means_CD.T - found.means_CD.square().sum(1) / 2
