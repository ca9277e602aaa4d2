"""k-nearest-neighbour classifier: majority class of the nearest train images, accuracy on test."""

from sklearn.neighbors import KNeighborsClassifier

from coupled.metrics.arm import Labelled, Measured, Variant
from coupled.metrics.arm._arrays import Labels, Matrix, train_and_test
from coupled.metrics.pair._arrays import check_at_least
from coupled.metrics.undefined import Undefined

SEES = "classifier"
NEIGHBOURS = 20
DETAILS = (Variant("cosine", k=NEIGHBOURS),)
RANGE = (0.0, 1.0)
INVARIANCES = ("rotation", "permutation", "scale", "row_scale", "image_order")


def knn(train: Matrix, train_labels: Labels, test: Matrix, test_labels: Labels, *, k: int = NEIGHBOURS) -> float:
    """Return the accuracy of a k-nearest-neighbour classifier by cosine, without weights.

    An image is assigned the most frequent class among the k train images with the highest cosine. In a tie the lowest
    class wins.

    Args:
        train: rows [N, D], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        train_labels: the class of each row [N], integers; an array, a list, a tensor, or an iterable of blocks.
        test: rows [M, D].
        test_labels: their classes [M].
        k: number of neighbours that vote; `coupled quality` uses 20, as in Caron et al. 2021, arXiv 2104.14294.

    Returns:
        The share of test images that are classified correctly, between 0 and 1.
        NaN, whose attribute `reason` says why, for fewer than k train images.

    Raises:
        ValueError: if a split is not 2-D or has a value that is not finite, train has fewer than 2 rows or test none,
            their widths differ, or the labels are not integers, one per row; if k is less than 1.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(100) % 2
        >>> x = np.random.default_rng(0).normal(size=(100, 4)) + 10 * labels[:, None]
        >>> knn(x, labels, x, labels, k=1)
        1.0

    Source: Wu et al. 2018, arXiv 1805.01978, without weights; 20 neighbours as in Caron et al. 2021, arXiv 2104.14294.
    """
    check_at_least(k, 1, "k")
    return accuracy(*train_and_test(train, train_labels, test, test_labels), k)


def values(train: Labelled, test: Labelled, seed: int) -> dict[Variant, Measured]:
    """Return the accuracy with 20 neighbours."""
    return {DETAILS[0]: Measured(accuracy(train, test, NEIGHBOURS))}


def accuracy(train: Labelled, test: Labelled, k: int) -> float:
    """The share of test images that k neighbours classify correctly."""
    if len(train.rows_ND) < k:
        return Undefined(f"fewer than {k} train images")
    model = KNeighborsClassifier(n_neighbors=k, metric="cosine", algorithm="brute")
    model.fit(train.rows_ND.double().numpy(), train.labels_N.numpy())
    return float(model.score(test.rows_ND.double().numpy(), test.labels_N.numpy()))
