"""Few-shot accuracy between two classes: as `few_shot`, mean over pairs of classes.

Source: the two-way evaluation of arXiv 2506.04411.
"""

from itertools import combinations

import numpy as np
import torch

from coupled.metrics.arm import Labelled, Measured, Variant
from coupled.metrics.arm._classes import classes
from coupled.metrics.arm._probes import accuracy, chosen, shuffled_by_class
from coupled.metrics.arm.few_shot import DETAILS as DETAILS
from coupled.metrics.arm.few_shot import REPEATS, SHOTS, STRENGTH
from coupled.metrics.arm.nccc import nearness
from coupled.metrics.undefined import Undefined
from coupled.stream.seeds import permutation, philox

SEES = "classifier"
PAIRS = 5  # on which a probe is fitted in each draw
RANGE = (0.0, 1.0)


def values(train: Labelled, test: Labelled, seed: int) -> dict[Variant, Measured]:
    """Mean accuracy, and its standard deviation (n - 1), over the 10 seeded draws of m images a class of `few_shot`.

    `nccc` is the mean over all ordered pairs of classes i != j of the share of i's test images nearer to the centre of
    i than to that of j; `probe` is fitted to 5 seeded pairs in each draw, others in the next. Undefined where a class
    has fewer than m train images or no test image, or train has one class only.
    """
    labels_N = train.labels_N.numpy()
    classes_C, counts_C = np.unique(labels_N, return_counts=True)
    starts_C = counts_C.cumsum() - counts_C
    untested = np.setdiff1d(classes_C, test.labels_N.numpy())
    pairs = list(combinations(range(len(classes_C)), 2))
    found: dict[Variant, list[float]] = {detail: [] for detail in DETAILS}
    for repeat in range(REPEATS if pairs and not len(untested) else 0):
        order_N = shuffled_by_class(labels_N, seed, "analysis/few_shot", repeat)
        draw = permutation(len(pairs), philox(seed, "analysis/few_shot_two_way", repeat))[:PAIRS]
        for m in SHOTS:
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
        missing = Undefined(f"class {classes_C[counts_C.argmin()]} has {counts_C.min()} train images")
    return {
        detail: Measured(float(np.mean(each)), float(np.std(each, ddof=1))) if each else Measured(missing)
        for detail, each in found.items()
    }


def two_way(train: Labelled, test: Labelled) -> float:
    """The mean of the two-way accuracies of class centres over all ordered pairs; each class of train has test images.

    Equally near counts as wrong; test images of other classes are not looked at.
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
