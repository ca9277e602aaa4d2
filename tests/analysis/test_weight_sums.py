"""Distances and angles of weights against values computed by hand and in long double."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coupled.metrics.weights import PART, Gap, aggregates, all_squares, layer_kind, squares, stage, state


def gap_of(reference: Tensor, arm: Tensor) -> Gap:
    return squares(state(reference), state(arm)).gap()


def test_a_hand_computed_layer() -> None:
    """a = (3, 4), b = (0, 5): norms 5 and 5, distance sqrt(9 + 1), gap sqrt(10) / 5, cosine 20 / 25."""
    gap = gap_of(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 5.0]]))
    expected = 2, math.sqrt(10) / 5, math.sqrt(10), 5, 5, 0.8, math.degrees(math.acos(0.8))
    assert gap[:7] == pytest.approx(expected, abs=1e-13)


def test_sums_over_chunks_equal_sums_over_the_whole_tensor() -> None:
    """Several chunks and a remainder, for every pair; no entry may be skipped or counted twice."""
    generator = torch.Generator().manual_seed(0)
    arms = {arm: list(torch.randn(3, 3, PART // 4, 3, generator=generator)) for arm in "abc"}
    arms["c"] = [arms["c"][0], None, None]
    pairs = [("a", "b"), ("a", "c"), ("c", "b")]
    found = all_squares(arms, pairs)
    assert list(found) == pairs
    for one, other in pairs:
        expected = squares(state(*arms[one]), state(*arms[other]))
        assert found[one, other] == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_sums_keep_every_bit_of_the_formula() -> None:
    """Norms shared by the pairs and an earlier epoch given twice save work, and must change no digit of a table."""
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(2, 2, PART + 5, generator=generator)
    for histories in ([(one[0],) * 2 + (None,)] * 2, [(x[0], x[1], x[1]) for x in (one, other)]):
        found = all_squares(dict(zip("ab", histories, strict=True)), [("a", "b")])["a", "b"]
        expected = [0.0] * 9
        for part in (slice(0, PART), slice(PART, None)):
            (a, u, p), (b, v, q) = (
                (now[part].double(), now[part].double() - start[part].double(), before)
                for now, start, before in histories
            )
            products = [(a - b, a - b), (a, a), (b, b), (a, b), (u, u), (v, v), (u, u), (v, v), (u, v)]
            updates = [math.nan if p is q is None else 1] * 3
            factors = [1.0] * 6 + updates
            each = [float(x.dot(y)) * f for (x, y), f in zip(products, factors, strict=True)]
            expected = [total + more for total, more in zip(expected, each, strict=True)]
        assert found[0] == PART + 5
        assert str(list(found[1:])) == str(expected)


def test_hand_computed_aggregates() -> None:
    """Layers (3, 4)-(0, 5) and (2)-(0): gaps sqrt(10)/5 and 2; as one vector (3, 4, 2)-(0, 5, 0)."""
    layers = [
        squares(state(torch.tensor([3.0, 4.0])), state(torch.tensor([0.0, 5.0]))),
        squares(state(torch.tensor([2.0])), state(torch.tensor([0.0]))),
    ]
    total = aggregates(layers)
    assert total["mean"].gap == pytest.approx((math.sqrt(10) / 5 + 2) / 2, abs=1e-15)
    assert total["sum"].gap == pytest.approx(math.sqrt(10) / 5 + 2, abs=1e-15)
    norms = math.sqrt(29), 5.0
    expected = 3, math.sqrt(14) / (0.5 * sum(norms)), math.sqrt(14), *norms, 20 / (norms[0] * norms[1])
    assert total["global"][:6] == pytest.approx(expected, abs=1e-15)
    assert math.isnan(total["sum"].cosine)
    assert math.isnan(total["sum"].angle)


def test_two_zero_tensors_have_no_gap_and_one_zero_tensor_the_largest() -> None:
    """timm starts the last batch-norm scale of a block at zero: 0 / 0 would lose epoch 0."""
    zero, one = torch.zeros(3), torch.ones(3)
    assert gap_of(zero, zero)[1:7] == (0, 0, 0, 0, 1, 0)
    gap = gap_of(zero, one)
    assert gap.gap == 2
    assert math.isnan(gap.cosine)
    assert math.isnan(gap.angle)


def test_the_gap_is_symmetric_and_at_most_two() -> None:
    """Opposite vectors reach the maximum."""
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert gap_of(a, b).gap == gap_of(b, a).gap
    assert gap_of(a, -a).gap == pytest.approx(2, abs=1e-15)
    assert gap_of(a, -a).cosine == pytest.approx(-1, abs=1e-15)


def test_float32_weights_are_summed_in_float64() -> None:
    """float32 sums of a million squares lose the sixth digit; a gap of 1e-6 between two epochs is real."""
    a, b = torch.randn(2, 1_000_000, generator=torch.Generator().manual_seed(0))
    expected = np.linalg.norm(a.numpy().astype(np.longdouble) - b.numpy().astype(np.longdouble))
    assert gap_of(a, b).distance == pytest.approx(float(expected), rel=1e-13)


def test_the_kind_of_a_tensor_follows_from_name_and_dimensions() -> None:
    """A reader averages by kind; a bias of a convolution is no batch-norm shift."""
    dimensions = {
        "encoder.conv1.weight": 4,
        "encoder.conv1.bias": 1,
        "encoder.bn1.weight": 1,
        "encoder.bn1.bias": 1,
        "encoder.bn1.running_mean": 1,
        "projector.0.weight": 2,
        "projector.0.bias": 1,
        "encoder.pos_embed": 3,
    }
    kinds = {name: layer_kind(name, dimensions) for name in dimensions}
    assert list(kinds.values()) == [
        *("conv", "other", "norm_scale", "norm_shift"),
        *("running", "linear", "other", "other"),
    ]


def test_stages_are_those_of_a_resnet_or_the_top_level_modules_of_the_encoder() -> None:
    """Drift is reported by stage; a transformer has other stages."""
    names = (
        "encoder.conv1.weight",
        "encoder.bn1.bias",
        "encoder.layer3.0.conv2.weight",
        "encoder.blocks.4.norm1.weight",
    )
    assert [stage(name) for name in names] == ["stem", "stem", "layer3", "blocks"]


def test_hand_computed_drifts_and_updates() -> None:
    """a: (0, 0) -> (1, 0) -> (3, 4); b: (0, 0) -> (1, 0) -> (1, 5): updates (2, 4) and (0, 5)."""
    start, before = torch.zeros(2), torch.tensor([1.0, 0.0])
    gap = squares(*(state(torch.tensor(now), start, before) for now in ([3.0, 4.0], [1.0, 5.0]))).gap()
    assert gap.reference_drift == pytest.approx(5, abs=1e-15)
    assert gap.arm_drift == pytest.approx(math.sqrt(26), abs=1e-14)
    assert gap.update_cosine == pytest.approx(20 / (math.sqrt(20) * 5), abs=1e-15)


def test_a_first_snapshot_has_neither_drift_nor_update() -> None:
    """A tensor that did not move has no direction."""
    a, b = torch.ones(3), torch.tensor([1.0, 2.0, 3.0])
    first = gap_of(a, b)
    assert math.isnan(first.reference_drift)
    assert math.isnan(first.update_cosine)
    still = squares(state(a, a, a), state(b, a, a)).gap()
    assert (still.reference_drift, still.arm_drift) == (0, pytest.approx(math.sqrt(5), abs=1e-15))
    assert math.isnan(still.update_cosine)


def test_drifts_and_updates_of_layers_add_up() -> None:
    """`global` is that of the layers as one long vector; `mean` the mean of the rows."""
    generator = torch.Generator().manual_seed(0)
    past = [[torch.randn(size, generator=generator) for _ in range(3)] for size in (7, 7, 20, 20)]
    layers = [squares(state(*past[0]), state(*past[1])), squares(state(*past[2]), state(*past[3]))]
    joined = [state(*(torch.cat(pair) for pair in zip(past[i], past[i + 2], strict=True))) for i in (0, 1)]
    total = aggregates(layers)
    assert total["global"] == pytest.approx(squares(*joined).gap(), abs=1e-12)
    for column in ("reference_drift", "update_cosine", "angle"):
        mean = sum(getattr(layer.gap(), column) for layer in layers) / 2
        assert getattr(total["mean"], column) == pytest.approx(mean, abs=1e-12)
    assert math.isnan(total["sum"].update_cosine)


@settings(deadline=None, derandomize=True)
@given(exponent=st.floats(-9, 0.4), size=st.floats(0.1, 10), turn=st.floats(0, 6))
def test_small_angles_keep_their_digits(exponent: float, size: float, turn: float) -> None:
    """acos of the cosine gives 0 below 1e-8 radians; here ten digits of 1e-4 are correct."""
    radians = 10**exponent
    a = torch.tensor([math.cos(turn), math.sin(turn)], dtype=torch.float64)
    b = size * torch.tensor([math.cos(turn + radians), math.sin(turn + radians)], dtype=torch.float64)
    error = 1e-15 / radians if size == 1 else 1e-15 / radians**2
    assert gap_of(a, b).angle == pytest.approx(math.degrees(radians), rel=max(1e-12, 100 * error))


def test_the_angle_of_equal_and_opposite_tensors_is_exact() -> None:
    """0 at the shared start, not 1e-6."""
    a = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert gap_of(a, a.clone()).angle == 0
    assert gap_of(a, -a).angle == 180
