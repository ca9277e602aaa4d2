"""Augmentation policies, which choose operations for each view: RandAugment and AutoAugment, as torchvision has them.

RandAugment (Cubuk et al. 2020) draws each operation uniformly from 14. AutoAugment (Cubuk et al. 2019) draws one of 25
pairs of operations, each with its probability. The columns of a view's eight random numbers are: of RandAugment, the
choice and the sign of the first operation, of the second, and so on; of AutoAugment, the pair, then whether the first
operation happens and its sign, then the same for the second.

Shape letters: B images, V views, R random numbers of a view, K operations of a view.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

POLICY_DRAWS = 8  # numbers per view of the table "policy views"
MOST_OPERATIONS = 4  # K
RAND_AUGMENT_BINS, AUTO_AUGMENT_BINS = 31, 10  # of torchvision: the magnitudes are 0 to bins - 1
OPERATIONS = (  # `policy_op_BVK` has indices into this tuple; RandAugment draws from the first 14
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
    "invert",
)
RAND_AUGMENT_OPERATIONS = 14
# the largest value of the signed operations: slope, share of the view's side, degrees, and change of the factor 1
LARGEST = {"shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331, "rotate": 30.0}
LARGEST |= dict.fromkeys(("brightness", "color", "contrast", "sharpness"), 0.9)

# a pair per line: operation, probability and magnitude of the first, then of the second; - has no magnitude
AUTO_AUGMENT_TEXT = {
    "auto_augment_cifar10": """
invert 0.1 - contrast 0.2 6
rotate 0.7 2 translate_x 0.3 9
sharpness 0.8 1 sharpness 0.9 3
shear_y 0.5 8 translate_y 0.7 9
auto_contrast 0.5 - equalize 0.9 -
shear_y 0.2 7 posterize 0.3 7
color 0.4 3 brightness 0.6 7
sharpness 0.3 9 brightness 0.7 9
equalize 0.6 - equalize 0.5 -
contrast 0.6 7 sharpness 0.6 5
color 0.7 7 translate_x 0.5 8
equalize 0.3 - auto_contrast 0.4 -
translate_y 0.4 3 sharpness 0.2 6
brightness 0.9 6 color 0.2 8
solarize 0.5 2 invert 0.0 -
equalize 0.2 - auto_contrast 0.6 -
equalize 0.2 - equalize 0.6 -
color 0.9 9 equalize 0.6 -
auto_contrast 0.8 - solarize 0.2 8
brightness 0.1 3 color 0.7 0
solarize 0.4 5 auto_contrast 0.9 -
translate_y 0.9 9 translate_y 0.7 9
auto_contrast 0.9 - solarize 0.8 3
equalize 0.8 - invert 0.1 -
translate_y 0.7 9 auto_contrast 0.9 -
""",
    "auto_augment_imagenet": """
posterize 0.4 8 rotate 0.6 9
solarize 0.6 5 auto_contrast 0.6 -
equalize 0.8 - equalize 0.6 -
posterize 0.6 7 posterize 0.6 6
equalize 0.4 - solarize 0.2 4
equalize 0.4 - rotate 0.8 8
solarize 0.6 3 equalize 0.6 -
posterize 0.8 5 equalize 1.0 -
rotate 0.2 3 solarize 0.6 8
equalize 0.6 - posterize 0.4 6
rotate 0.8 8 color 0.4 0
rotate 0.4 9 equalize 0.6 -
equalize 0.0 - equalize 0.8 -
invert 0.6 - equalize 1.0 -
color 0.6 4 contrast 1.0 8
rotate 0.8 8 color 1.0 2
color 0.8 8 solarize 0.8 7
sharpness 0.4 7 invert 0.6 -
shear_x 0.6 5 equalize 1.0 -
color 0.4 0 equalize 0.6 -
equalize 0.4 - solarize 0.2 4
solarize 0.6 5 auto_contrast 0.6 -
invert 0.6 - equalize 1.0 -
color 0.6 4 contrast 1.0 8
equalize 0.8 - equalize 0.6 -
""",
}
Policy = Literal["none", "rand_augment", "auto_augment_cifar10", "auto_augment_imagenet"]


def value_of(operation: str, magnitude: float, bins: int) -> float:
    """Return the parameter of an operation without its sign, for a magnitude of 0 to bins - 1.

    It is a slope, a share of the side, degrees, a change of the factor 1, the kept bits of `posterize`, or the
    threshold of `solarize` in grey levels. It is 0 for operations without a parameter.
    """
    if operation == "posterize":
        return 8.0 - round(4 * magnitude / (bins - 1))
    if operation == "solarize":
        return 255 * (1 - magnitude / (bins - 1))
    return LARGEST.get(operation, 0.0) * magnitude / (bins - 1)


def auto_augment_pairs(policy: str) -> list[list[tuple[str, float, int]]]:
    """Return the pairs of (operation, probability, magnitude) of an AutoAugment policy."""
    cells = [line.split() for line in AUTO_AUGMENT_TEXT[policy].strip().splitlines()]
    return [[(row[k], float(row[k + 1]), 0 if row[k + 2] == "-" else int(row[k + 2])) for k in (0, 3)] for row in cells]


def decode_policy(
    draws_RBV: NDArray[np.float64], policy: Policy, operations: int, magnitude: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the operations of each view and their parameters, both [B, V, K]; "identity" fills up K.

    `operations` and `magnitude` are those of RandAugment.
    """
    op_KBV = np.zeros((MOST_OPERATIONS, *draws_RBV.shape[1:]), np.int64)
    value_KBV = np.zeros(op_KBV.shape)
    if policy == "rand_augment":
        sizes = np.array([value_of(name, magnitude, RAND_AUGMENT_BINS) for name in OPERATIONS])
        for k in range(operations):
            op_KBV[k] = (draws_RBV[2 * k] * RAND_AUGMENT_OPERATIONS).astype(np.int64)
            value_KBV[k] = sizes[op_KBV[k]]
            _negate(value_KBV[k], op_KBV[k], draws_RBV[2 * k + 1])
    elif policy in AUTO_AUGMENT_TEXT:
        pairs = auto_augment_pairs(policy)
        chosen_BV = (draws_RBV[0] * len(pairs)).astype(np.int64)
        for k in range(2):
            op_P, prob_P, value_P = map(np.array, zip(*(_entry(*pair[k]) for pair in pairs), strict=True))
            happens_BV = draws_RBV[1 + 2 * k] < prob_P[chosen_BV]
            op_KBV[k] = np.where(happens_BV, op_P[chosen_BV], 0)
            value_KBV[k] = np.where(happens_BV, value_P[chosen_BV], 0.0)
            _negate(value_KBV[k], op_KBV[k], draws_RBV[2 + 2 * k])
    return np.ascontiguousarray(op_KBV.transpose(1, 2, 0)), np.ascontiguousarray(value_KBV.transpose(1, 2, 0))


def _entry(operation: str, probability: float, magnitude: int) -> tuple[int, float, float]:
    return OPERATIONS.index(operation), probability, value_of(operation, magnitude, AUTO_AUGMENT_BINS)


def _negate(value_BV: NDArray[np.float64], op_BV: NDArray[np.int64], draw_BV: NDArray[np.float64]) -> None:
    """Change in place the sign of half of the parameters that have a sign."""
    signed = np.array([name in LARGEST for name in OPERATIONS])
    value_BV[signed[op_BV] & (draw_BV < 0.5)] *= -1
