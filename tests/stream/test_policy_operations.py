"""The operations of policies on views, each against torchvision's function for one uint8 image."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms.autoaugment import _apply_op

from coupled.stream.policies import LARGEST, OPERATIONS, value_of
from coupled.stream.policy_operations import apply_policy_, numbers_of
from coupled.stream.seeds import random_uint32

SIZE = 32
TORCHVISION = {name: name.title().replace("_", "") for name in OPERATIONS}
SPACE = RandAugment()._augmentation_space(31, (SIZE, SIZE)) | {"Invert": (torch.tensor(0.0), False)}


@pytest.fixture(scope="module")
def levels() -> Tensor:
    """uint8 [3, 6, S, S]: smooth, dark, noisy, of few levels, flat, and flat in one channel."""
    coarse = torch.from_numpy(random_uint32(0, "levels", shape=(6, 3, 8, 8)) * np.float32(255 * 2.0**-32))
    views = torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear").to(torch.uint8)
    views[1] = views[1] // 3 + 20
    views[2] = torch.from_numpy(random_uint32(0, "noise", shape=(3, SIZE, SIZE)) % 256).to(torch.uint8)
    views[3] = views[3] // 64 * 64
    views[4], views[5, 1] = 77, 200
    return views.transpose(0, 1).contiguous()


def ours(levels: Tensor, operation: str, value: float) -> Tensor:
    op_MK = np.full((levels.shape[1], 1), OPERATIONS.index(operation))
    pixels = levels.float() / 255
    apply_policy_(pixels, op_MK, numbers_of(op_MK, np.full(op_MK.shape, value), SIZE))
    levels_3MSS = (pixels * 255).round()
    assert (pixels * 255 - levels_3MSS).abs().max() < 1e-4
    return levels_3MSS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_is_torchvisions_at_each_magnitude(levels, operation):
    """Otherwise "RandAugment" in a paper would be another augmentation than ours.

    They are equal, except that a shear may round a source midway between two pixels to the other pixel.
    """
    magnitudes, signed = SPACE[TORCHVISION[operation]]
    assert signed == (operation in LARGEST)
    for magnitude in range(31) if magnitudes.ndim else [0]:
        value = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
        ours_value = value_of(operation, magnitude, 31)
        assert ours_value == pytest.approx(value / (SIZE if "translate" in operation else 1), rel=1e-6)
        for sign in (1, -1) if signed else (1,):
            theirs = torch.stack(
                [
                    _apply_op(view, TORCHVISION[operation], sign * value, InterpolationMode.NEAREST, None)
                    for view in levels.unbind(1)
                ],
                dim=1,
            )
            same = ours_value if "translate" in operation else value  # theirs is a float32 in both
            differs = (ours(levels, operation, sign * same) - theirs).abs()
            midway = operation.startswith("shear") and magnitude in (12, 20, 28)
            assert (differs > 0).float().mean() <= (0.01 if midway else 0), (magnitude, sign)


def test_operations_are_applied_in_their_order_and_only_to_their_views(levels):
    """Otherwise a view would have another view's operation, or its second one first."""
    numbers = {name: OPERATIONS.index(name) for name in OPERATIONS}
    op_MK = np.array([["solarize", "rotate"], ["rotate", "solarize"], ["identity"] * 2] * 2)
    op_MK = np.vectorize(numbers.get)(op_MK)
    value_MK = np.where(op_MK == numbers["rotate"], 30.0, np.where(op_MK == numbers["solarize"], 80.0, 0.0))
    pixels = levels.float() / 255 + 1e-4
    apply_policy_(pixels, op_MK, numbers_of(op_MK, value_MK, SIZE))
    for view in range(6):
        alone = levels[:, view : view + 1]
        for op, value in zip(op_MK[view], value_MK[view], strict=True):
            alone = ours(alone, OPERATIONS[op], value)
        unchanged = not op_MK[view].any()
        expected = levels[:, view : view + 1].float() / 255 + 1e-4 if unchanged else alone * (1 / 255)
        assert torch.equal(pixels[:, view : view + 1], expected), view
