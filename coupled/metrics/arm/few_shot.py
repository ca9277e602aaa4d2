"""Few-shot accuracy: class centres and a probe from m train images a class, accuracy on all of test.

Source: the few-shot evaluation of arXiv 2506.04411.
"""

import numpy as np

from coupled.metrics.arm import Labelled, Measured, Variant
from coupled.metrics.arm._probes import accuracy, chosen, shuffled_by_class
from coupled.metrics.arm.nccc import nearest_class
from coupled.metrics.undefined import Undefined

SEES = "classifier"
SHOTS = (1, 5, 10, 20, 50, 100, 500)
REPEATS = 10
STRENGTH = 1.0  # of the probe: one image a class leaves none to choose it with
DETAILS = tuple(Variant(classifier, shots=m) for m in SHOTS for classifier in ("nccc", "probe"))
RANGE = (0.0, 1.0)


def values(train: Labelled, test: Labelled, seed: int) -> dict[Variant, Measured]:
    """Mean accuracy, and its standard deviation (n - 1), over 10 seeded draws of m images a class.

    The images of a draw of m lie within those of the same draw of a larger m. `nccc` is the rule of `nccc`; `probe` is
    L2 logistic regression with C = 1 as in `linear_probe`. Undefined where a class has fewer than m train images, or
    train has one class only.
    """
    labels_N = train.labels_N.numpy()
    classes_C, counts_C = np.unique(labels_N, return_counts=True)
    starts_C = counts_C.cumsum() - counts_C
    found: dict[Variant, list[float]] = {detail: [] for detail in DETAILS}
    for repeat in range(REPEATS):
        order_N = shuffled_by_class(labels_N, seed, "analysis/few_shot", repeat)
        for m in SHOTS:
            if len(classes_C) > 1 and m <= counts_C.min():
                drawn = chosen(train, order_N[(starts_C[:, None] + np.arange(m)).ravel()])
                hits_M = nearest_class(drawn, test.rows_ND) == test.labels_N
                found[Variant("nccc", m)] += [float(hits_M.double().mean())]
                found[Variant("probe", m)] += [accuracy(drawn, test, STRENGTH)]
    few = classes_C[counts_C.argmin()]
    missing = Undefined(
        f"class {few} has {counts_C.min()} train images" if len(classes_C) > 1 else "train has fewer than 2 classes"
    )
    return {
        detail: Measured(float(np.mean(each)), float(np.std(each, ddof=1))) if each else Measured(missing)
        for detail, each in found.items()
    }
