"""Which labels of the training images are known to an objective that sees only a share of them.

Shape letters: N images of the dataset.
"""

import torch
from torch import Tensor

from coupled.stream.seeds import permutation, philox


def known_labels(seed: int, images: int, fraction: float) -> Tensor:
    """Return the mask of the images whose labels are known: bool [N], true for `fraction` of them, rounded.

    The mask is a function of the arguments, so it is the same in every epoch and process and after a resume. The images
    of a smaller fraction are a subset of those of a larger one.
    """
    places_N = permutation(images, philox(seed, "known labels"))
    return torch.from_numpy(places_N < round(fraction * images))
