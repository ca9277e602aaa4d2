"""Nearest neighbours: the class that most of the nearest train images have, accuracy on test.

Source: Wu et al. 2018, arXiv 1805.01978, without weights; 20 neighbours as in Caron et al. 2021, arXiv 2104.14294.
"""

from sklearn.neighbors import KNeighborsClassifier

from coupled.metrics.arm import Labelled, Measured, Variant
from coupled.metrics.undefined import Undefined

SEES = "classifier"
NEIGHBOURS = 20
DETAILS = (Variant("cosine", k=NEIGHBOURS),)
RANGE = (0.0, 1.0)


def values(train: Labelled, test: Labelled, seed: int) -> dict[Variant, Measured]:
    """The share of test images whose class is the commonest among the 20 train images of the highest cosine.

    Of equally common classes the lowest wins. Undefined for fewer than 20 train images.
    """
    if len(train.rows_ND) < NEIGHBOURS:
        return {DETAILS[0]: Measured(Undefined(f"fewer than {NEIGHBOURS} train images"))}
    model = KNeighborsClassifier(n_neighbors=NEIGHBOURS, metric="cosine", algorithm="brute")
    model.fit(train.rows_ND.double().numpy(), train.labels_N.numpy())
    return {DETAILS[0]: Measured(float(model.score(test.rows_ND.double().numpy(), test.labels_N.numpy())))}
