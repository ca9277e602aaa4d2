"""The random warp: its draws, and what it leaves unchanged. Its pixels are compared with scipy's in test_augment.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from coupled.stream.augment import augment
from coupled.stream.portable import portable_log, portable_normal
from coupled.stream.recipe import Augmentation
from coupled.stream.view_plan import inputs_digest, view_plan
from coupled.stream.warp import apply_warp_, splines

EVERYONE = np.arange(3000)


def test_moves_are_normal_numbers_times_a_uniform_length(augmentation: Augmentation) -> None:
    """Otherwise warps would be weaker, stronger or in one direction only."""
    plan = view_plan(0, 0, 3000, replace(augmentation, warp_prob=0.3, warp_length=0.2))[EVERYONE]
    moves_M8 = plan.warp_BV8.flatten(0, 1).numpy()
    warped_M = moves_M8.any(axis=1)
    assert warped_M.mean() == pytest.approx(0.3, abs=0.02)
    assert (moves_M8[warped_M] != 0).all()
    scaled = moves_M8[warped_M] / 0.2  # uniform times normal: moments 0, 1/3, and 3/5 of the fourth
    assert scaled.mean() == pytest.approx(0, abs=0.02)
    assert (scaled**2).mean(0) == pytest.approx(1 / 3, abs=0.05)
    assert (scaled**4).mean() == pytest.approx(3 / 5, rel=0.1)
    correlations = np.corrcoef(scaled.T) - np.eye(8)
    assert np.abs(correlations).max() < 0.1
    of_length = np.corrcoef((scaled**2)[:, :4].sum(1), (scaled**2)[:, 4:].sum(1))[0, 1]
    assert of_length > 0.3  # all points of a view share its length


def test_portable_logarithms_and_normal_numbers_are_right() -> None:
    """Otherwise moves and mixing weights would not have their distributions."""
    x = np.concatenate([2.0 ** np.linspace(-33, 0, 4001)[:-1], [0.5, 1 - 2.0**-33]])
    assert portable_log(x) == pytest.approx(np.log(x), rel=1e-14, abs=0)
    in_float = torch.linspace(1e-6, 8, 4001)
    torch.testing.assert_close(portable_log(in_float, 8), in_float.log(), rtol=0, atol=2e-6)
    draws = np.random.default_rng(0).random((2, 4000))
    for normal in portable_normal(*draws):
        assert kstest(normal, "norm").pvalue > 1e-3
    assert np.isfinite(portable_normal(np.zeros(1), np.zeros(1))).all()


def test_the_control_points_move_by_their_moves() -> None:
    """The pixel of a ramp at a moved point is the one that was at the point before."""
    moves_18 = np.array([[3.0, 6.0, -3.0, 3.0, 6.0, -6.0, 0.0, 3.0]]) / 60
    ramp_S = torch.arange(60) / 60
    pixels = torch.stack([ramp_S[:, None].expand(60, 60), ramp_S.expand(60, 60), torch.zeros(60, 60)])[:, None].clone()
    apply_warp_(pixels, moves_18, splines(moves_18))
    for k, (y, x) in enumerate(((20, 20), (20, 40), (40, 20), (40, 40))):
        down, right = (moves_18[0, 2 * k : 2 * k + 2] * 60).round().astype(int)
        assert pixels[:2, 0, y + down, x + right] * 60 == pytest.approx([y, x], abs=1e-3)


def test_a_warp_keeps_all_other_columns_and_views(augmentation: Augmentation, images: torch.Tensor) -> None:
    """Otherwise the digests and views of runs without a warp would change."""
    first = replace(augmentation, warp_prob=1.0, views=3, second=augmentation.recipe())
    plan, without = view_plan(0, 0, 24, first), view_plan(0, 0, 24, replace(augmentation, views=3))
    indices = EVERYONE[:24]
    assert without.warp_VNR is None
    with_warp, plain = augment(images, plan[indices], 16), augment(images, without[indices], 16)
    assert torch.equal(with_warp[1:], plain[1:])
    assert not torch.equal(with_warp[0], plain[0])
    less = replace(plan[indices], warp_BV8=None)
    digests = [inputs_digest(indices, each) for each in (less, without[indices], plan[indices])]
    assert digests[0] == digests[1] != digests[2]
