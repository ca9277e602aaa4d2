"""Which random sources an arm uses, which settings a twin copies from its sibling, and the perturbation of a twin."""

from typing import Any

import pytest
import torch
from torch import nn

from coupled.config.controls import RandomSources, perturb, random_sources, streams, twins, with_twin_options


def test_an_arm_uses_the_shared_draws_its_own_or_those_of_its_sibling() -> None:
    arms: dict[str, dict[str, Any]] = {
        "cl": {"objective": "dcl"},
        "a": {"objective": "dcl", "unshared": ["augmentation", "init"]},
        "b": {"twin": "a", "unshared": ["order"]},
        "c": {"twin": "b"},
    }
    found = random_sources(arms)
    assert found["cl"] == RandomSources("", "", "")
    assert found["a"] == RandomSources("a", "", "a")
    assert found["b"] == RandomSources("a", "b", "a")
    assert found["c"] == found["b"]
    assert streams(found) == {"cl": "", "a": "a", "b": "b", "c": "b"}


def test_arms_that_share_order_and_views_share_a_stream_whatever_their_start() -> None:
    found = random_sources(
        {"cl": {}, "a": {"unshared": ["init"]}, "b": {"unshared": ["order"]}, "c": {"unshared": ["order"]}}
    )
    assert streams(found) == {"cl": "", "a": "", "b": "b", "c": "c"}


def test_shared_sources_use_the_seed_of_the_run_and_unshared_ones_a_seed_of_the_arm() -> None:
    """Different sources, arms and runs give different seeds, the same in every version."""
    assert RandomSources().seed("views", 7) == 7
    own = RandomSources("a", "a", "a")
    seeds = {own.seed(source, seed) for source in RandomSources._fields for seed in (7, 8)} | {
        RandomSources("b").seed("init", 7)
    }
    assert len(seeds) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert own.seed("init", 7) == RandomSources("a").seed("init", 7)


def test_a_twin_copies_the_settings_of_its_sibling() -> None:
    arms = {"t": {"twin": "cl", "perturb": {"ulps": 1, "step": 0}}, "cl": {"objective": "dcl", "temperature": 0.2}}
    filled = with_twin_options(arms)
    assert filled["t"] == {"objective": "dcl", "temperature": 0.2, "twin": "cl", "perturb": {"ulps": 1, "step": 0}}
    assert with_twin_options(filled) == filled


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"a": {"twin": "b"}}, r"arms\.a\.twin: no arm 'b' \(arms: a\)"),
        ({"a": {"twin": "a"}}, r"arms\.a\.twin: got a, which makes an arm its own twin"),
        ({"a": {"twin": "b"}, "b": {"twin": "a"}}, r"arms\.b\.twin: got a, which makes an arm its own twin"),
        ({"cl": {"objective": "dcl"}, "a": {"twin": "cl", "objective": "nscl"}}, r"arms\.a\.objective: got nscl;"),
        (
            {"cl": {"objective": "dcl"}, "a": {"twin": "cl", "temperature": 0.1}},
            r"arms\.a\.temperature: got 0\.1; a twin takes objective and options from arm 'cl'",
        ),
    ],
)
def test_an_invalid_twin_is_refused(arms: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_twin_options(arms)


def test_twins_are_the_arms_with_equal_objective_options_and_draws() -> None:
    """An arm with unshared views is a control of another kind: it is not part of the noise floor."""
    dcl = {"objective": "dcl", "temperature": 0.5}
    arms = {
        "cl": dcl,
        "t": {**dcl, "twin": "cl", "perturb": {"ulps": 1, "step": 0}},
        "same": dict(dcl),
        "hot": {**dcl, "temperature": 1.0},
        "views": {**dcl, "twin": "cl", "unshared": ["augmentation"]},
        "views2": {**dcl, "twin": "views"},
    }
    assert twins(arms, "cl") == ["t", "same"]
    assert twins(arms, "views") == ["views2"]


@pytest.mark.parametrize("ulps", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_perturbation_moves_one_weight_by_the_given_ulps(ulps: int, dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)).to(dtype)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    perturb(network, ulps, dtype)
    after = network.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["1.weight"]
    assert torch.equal(before["1.weight"].flatten()[1:], after["1.weight"].flatten()[1:])
    integers = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    pair = (before["1.weight"].flatten()[:1], after["1.weight"].flatten()[:1])
    was, now = (int(each.view(integers)) for each in pair)  # neighbours of one sign are neighbours as integers
    assert abs(now - was) == ulps
    assert pair[1] > pair[0]


@pytest.mark.parametrize("weight", [0.3, -0.3, 2.0**-9])
def test_a_perturbation_of_a_bfloat16_run_changes_the_rounded_weight_by_one_unit(weight: float) -> None:
    """A unit of float32 would be lost when autocast rounds the weights, and the noise floor would be 0."""
    network = nn.Linear(2, 2)
    nn.init.constant_(network.weight, weight)
    perturb(network, 1, torch.bfloat16)
    before, after = (each.to(torch.bfloat16) for each in (torch.tensor(weight), network.weight.detach()[0, 0]))
    assert network.weight.dtype == torch.float32
    assert int(after.view(torch.int16)) - int(before.view(torch.int16)) == (1 if weight > 0 else -1)
