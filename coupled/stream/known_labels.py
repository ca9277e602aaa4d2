"""The labels of the training images as an objective sees them: a share of them, with noise, or of groups of classes.

Shape letters: N images of the dataset, C classes.
"""

import numpy as np
import torch
from torch import Tensor

from coupled.objectives import Needs
from coupled.stream.seeds import permutation, philox, random_uint32


def seen_labels(labels_N: Tensor, classes: int, seed: int, needs: Needs) -> Tensor:
    """Return the labels that an objective with these needs sees: int64 [N], -1 for an unknown label.

    First labels are replaced by noise, then classes become groups, then labels become unknown. All is drawn by the
    seed, so it is the same in every epoch and process and after a resume. Raises ValueError for more groups than
    classes, and for noise with fewer than 2 classes.
    """
    if needs.label_noise and classes < 2:
        raise ValueError(
            f"label_noise: got {needs.label_noise}; the training images have {classes} classes, not 2 or more"
        )
    seen_N = noisy_labels(labels_N, classes, needs.label_noise, seed) if needs.label_noise else labels_N
    if needs.label_groups is not None:
        seen_N = label_groups(seed, classes, needs.label_groups)[seen_N]
    if needs.label_fraction < 1:
        seen_N = seen_N.where(known_labels(seed, len(labels_N), needs.label_fraction), -1)
    return seen_N


def known_labels(seed: int, images: int, fraction: float) -> Tensor:
    """Return the mask of the images whose labels are known: bool [N], true for `fraction` of them, rounded.

    The images of a smaller fraction are a subset of those of a larger one.
    """
    places_N = permutation(images, philox(seed, "known labels"))
    return torch.from_numpy(places_N < round(fraction * images))


def noisy_labels(labels_N: Tensor, classes: int, share: float, seed: int) -> Tensor:
    """Return the labels [N], each replaced with probability `share` by one of the other classes, all equally likely.

    With one seed, a smaller share replaces a subset of the labels, by the same classes. There must be 2 or more
    classes.
    """
    drawn_N2 = random_uint32(seed, "label noise", shape=(len(labels_N), 2)).astype(np.uint64)
    replaced_N = drawn_N2[:, 0] < round(share * 2**32)
    other_N = 1 + (drawn_N2[:, 1] * (classes - 1) >> 32)  # the distance to the new class, 1 to C - 1
    return (labels_N + torch.from_numpy((other_N * replaced_N).astype(np.int64))) % classes


def label_groups(seed: int, classes: int, groups: int) -> Tensor:
    """Return the group of each class: int64 [C], 0 to `groups` - 1; groups differ in size by at most one class.

    If one number of groups divides another, the smaller number merges whole groups of the larger. Raises ValueError
    for more groups than classes.
    """
    if groups > classes:
        raise ValueError(
            f"label_groups: got {groups}; the training images have {classes} classes, allowed is 2 to that"
        )
    return torch.from_numpy(permutation(classes, philox(seed, "label groups")) % groups)
