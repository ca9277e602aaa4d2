"""Few-shot accuracy: class centres and a probe fitted on m train images per class, accuracy on all of test."""

from collections.abc import Sequence

import numpy as np

from coupled.metrics.arm import Labelled, Measured, Variant
from coupled.metrics.arm._arrays import Labels, Matrix, train_and_test
from coupled.metrics.arm._probes import accuracy, chosen, shuffled_by_class
from coupled.metrics.arm.nccc import nearest_class
from coupled.metrics.pair._arrays import check_at_least
from coupled.metrics.undefined import Undefined

SEES = "classifier"
SPLITS = ("train", "test")
SHOTS = (1, 5, 10, 20, 50, 100, 500)
REPEATS = 10
STRENGTH = 1.0  # of the probe; it cannot be selected with one image per class
DETAILS = tuple(Variant(classifier, shots=m) for m in SHOTS for classifier in ("nccc", "probe"))
RANGE = (0.0, 1.0)
INVARIANCES = ("rotation", "permutation", "scale", "shift")


def few_shot(
    train: Matrix, train_labels: Labels, test: Matrix, test_labels: Labels, *, shots: int = 5, seed: int = 0
) -> dict[str, float]:
    """Return accuracies of two classifiers that are fitted on a few train images per class.

    The accuracies are means over 10 seeded draws of m = `shots` images per class. The images of a draw with m shots are
    a subset of the same draw with more shots. `nccc` is the rule of the metric `nccc`; `probe` is L2 logistic
    regression with C = 1 as in `linear_probe`.

    Args:
        train: rows [N, D], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.
        train_labels: the class of each row [N], integers; an array, a list, a tensor, or an iterable of blocks.
        test: rows [M, D].
        test_labels: their classes [M].
        shots: number of train images per class.
        seed: decides the draws; an integer of at least 0.

    Returns:
        `nccc` and `probe`, the mean accuracies over 10 draws, and `nccc_std` and `probe_std`, their standard deviations
        (n - 1).
        NaN, whose attribute `reason` says why, if a class has fewer train images, or train has only one class.

    Raises:
        ValueError: if a split is not 2-D or has a value that is not finite, train has fewer than 2 rows or test none,
            their widths differ, or the labels are not integers, one per row; if shots is below 1 or seed below 0.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(100) % 2
        >>> x = np.random.default_rng(0).normal(size=(100, 4)) + 10 * labels[:, None]
        >>> few_shot(x, labels, x, labels, shots=5)["nccc"]
        1.0

    Source: the few-shot evaluation of arXiv 2506.04411.
    """
    check_at_least(shots, 1, "shots")
    check_at_least(seed, 0, "seed")
    learned, scored = train_and_test(train, train_labels, test, test_labels)
    nccc, probe = values(learned, scored, seed, (int(shots),)).values()
    return {"nccc": nccc.value, "nccc_std": nccc.std, "probe": probe.value, "probe_std": probe.std}


def values(train: Labelled, test: Labelled, seed: int, shots: Sequence[int] = SHOTS) -> dict[Variant, Measured]:
    """Return the mean accuracies of both classifiers, with standard deviations, for every number of shots."""
    labels_N = train.labels_N.numpy()
    classes_C, counts_C = np.unique(labels_N, return_counts=True)
    starts_C = counts_C.cumsum() - counts_C
    found: dict[Variant, list[float]] = {Variant(name, m): [] for m in shots for name in ("nccc", "probe")}
    for repeat in range(REPEATS):
        order_N = shuffled_by_class(labels_N, seed, "analysis/few_shot", repeat)
        for m in shots:
            if len(classes_C) > 1 and m <= counts_C.min():
                drawn = chosen(train, order_N[(starts_C[:, None] + np.arange(m)).ravel()])
                hits_M = nearest_class(drawn, test.rows_ND) == test.labels_N
                found[Variant("nccc", m)] += [float(hits_M.double().mean())]
                found[Variant("probe", m)] += [accuracy(drawn, test, STRENGTH)]
    few = classes_C[counts_C.argmin()]
    missing = Undefined(
        f"class {few} has only {counts_C.min()} train images"
        if len(classes_C) > 1
        else "train has fewer than 2 classes"
    )
    return {
        detail: Measured(float(np.mean(each)), float(np.std(each, ddof=1))) if each else Measured(missing)
        for detail, each in found.items()
    }
