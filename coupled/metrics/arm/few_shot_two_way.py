"""Few-shot accuracy between two classes: like `few_shot`, mean over pairs of classes."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch

from coupled.metrics.arm import Labelled, Measured, Variant
from coupled.metrics.arm._arrays import Labels, Matrix, train_and_test
from coupled.metrics.arm._classes import classes
from coupled.metrics.arm._probes import accuracy, chosen, shuffled_by_class
from coupled.metrics.arm.few_shot import DETAILS as DETAILS
from coupled.metrics.arm.few_shot import REPEATS, SHOTS, STRENGTH
from coupled.metrics.arm.nccc import nearness
from coupled.metrics.pair._arrays import check_at_least
from coupled.metrics.undefined import Undefined
from coupled.stream.seeds import permutation, philox

SEES = "classifier"
SPLITS = ("train", "test")
PAIRS = 5  # on which a probe is fitted in each draw
RANGE = (0.0, 1.0)
INVARIANCES = ("rotation", "permutation", "scale", "shift")


def few_shot_two_way(
    train: Matrix, train_labels: Labels, test: Matrix, test_labels: Labels, *, shots: int = 5, seed: int = 0
) -> dict[str, float]:
    """Return accuracies between two classes, fitted on a few train images of each; means over pairs of classes.

    The accuracies are means over the 10 seeded draws of m = `shots` images per class of `few_shot`. `nccc` is the mean
    over all ordered pairs of classes i != j of the share of i's test images that are nearer to the centre of i than to
    that of j. `probe` is fitted to 5 seeded pairs per draw, which differ from draw to draw.

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
        NaN, whose attribute `reason` says why, if a class has fewer train images or no test image, or train has only
        one class.

    Raises:
        ValueError: if a split is not 2-D or has a value that is not finite, train has fewer than 2 rows or test none,
            their widths differ, or the labels are not integers, one per row; if shots is below 1 or seed below 0.

    Example:
        >>> import numpy as np
        >>> labels = np.arange(100) % 2
        >>> x = np.random.default_rng(0).normal(size=(100, 4)) + 10 * labels[:, None]
        >>> few_shot_two_way(x, labels, x, labels, shots=5)["nccc"]
        1.0

    Source: the two-way evaluation of arXiv 2506.04411.
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
    untested = np.setdiff1d(classes_C, test.labels_N.numpy())
    pairs = list(combinations(range(len(classes_C)), 2))
    found: dict[Variant, list[float]] = {Variant(name, m): [] for m in shots for name in ("nccc", "probe")}
    for repeat in range(REPEATS if pairs and not len(untested) else 0):
        order_N = shuffled_by_class(labels_N, seed, "analysis/few_shot", repeat)
        draw = permutation(len(pairs), philox(seed, "analysis/few_shot_two_way", repeat))[:PAIRS]
        for m in shots:
            if m <= counts_C.min():
                places_Cm = order_N[starts_C[:, None] + np.arange(m)]
                found[Variant("nccc", m)] += [two_way(chosen(train, places_Cm.ravel()), test)]
                probes = [_probe(train, test, places_Cm[list(pairs[each])].ravel()) for each in draw]
                found[Variant("probe", m)] += [float(np.mean(probes))]
    if not pairs:
        missing = Undefined("train has fewer than 2 classes")
    elif len(untested):
        missing = Undefined(f"class {untested[0]} has no test images")
    else:
        missing = Undefined(f"class {classes_C[counts_C.argmin()]} has only {counts_C.min()} train images")
    return {
        detail: Measured(float(np.mean(each)), float(np.std(each, ddof=1))) if each else Measured(missing)
        for detail, each in found.items()
    }


def two_way(train: Labelled, test: Labelled) -> float:
    """Mean two-way accuracy of class centres over all ordered pairs. Each class of train must have test images.

    A tie counts as wrong. Test images of other classes are ignored.
    """
    found = classes(train)
    known_M = torch.isin(test.labels_N, found.labels_C)
    place_M = torch.searchsorted(found.labels_C, test.labels_N[known_M])
    nearness_MC = nearness(found, test.rows_ND[known_M])
    own_M1 = nearness_MC.gather(1, place_M[:, None])
    wins_M = (own_M1 > nearness_MC).sum(1).double() / (len(found.labels_C) - 1)
    sums_C = wins_M.new_zeros(len(found.labels_C)).index_add_(0, place_M, wins_M)
    return float((sums_C / place_M.bincount(minlength=len(sums_C))).mean())


def _probe(train: Labelled, test: Labelled, places: np.ndarray) -> float:
    """Accuracy on the test images of the classes of these train images."""
    drawn = chosen(train, places)
    inside_M = torch.isin(test.labels_N, drawn.labels_N)
    return accuracy(drawn, Labelled(test.rows_ND[inside_M], test.labels_N[inside_M]), STRENGTH)
