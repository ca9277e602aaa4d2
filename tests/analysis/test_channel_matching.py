"""Matching channels: the groups are symmetries of the network, a known permutation is found, nothing else is moved."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from coupled.analysis.weights.channel_matching import FIXED, channel_axes, match_channels, permuted
from coupled.models.network import Network, build_network, shared_tensors

Orders = dict[str, Tensor]


def network(name: str, seed: int = 0) -> Network:
    """A small ResNet with a projector in evaluation mode; all numbers of its batch norms differ."""
    found = build_network(
        encoder=name,
        width_multiplier=0.125,
        image_size=32,
        projector_hidden_dim=24,
        projector_output_dim=6,
        seed=seed,
    )
    generator = torch.Generator().manual_seed(seed)
    for tensor_name, tensor in found.state_dict().items():
        if tensor.ndim == 1:
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        assert tensor_name
    return found.eval()


def floating(one: Network) -> dict[str, Tensor]:
    return {name: t for name, t in shared_tensors(one).items() if t.is_floating_point()}


def random_orders(tensors: Mapping[str, Tensor], axes: Mapping[str, tuple[str, ...]]) -> Orders:
    generator = torch.Generator().manual_seed(1)
    sizes = {g: tensors[n].shape[i] for n, groups in axes.items() for i, g in enumerate(groups) if g != FIXED}
    return {group: torch.randperm(size, generator=generator) for group, size in sizes.items()}


def axes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    return channel_axes({name: tuple(tensor.shape) for name, tensor in tensors.items()})


def reordered(tensors: Mapping[str, Tensor], axes: Mapping[str, tuple[str, ...]], orders: Orders) -> dict[str, Tensor]:
    return {name: permuted(tensor, axes.get(name, ()), orders) for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_reordering_a_group_does_not_change_the_function(name: str) -> None:
    """Otherwise a smaller gap after matching would compare two different functions."""
    one = network(name)
    tensors = floating(one)
    axes = axes_of(tensors)
    orders = random_orders(tensors, axes)
    views_VB3SS = torch.randn(1, 3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = one(views_VB3SS)
        one.load_state_dict({**one.state_dict(), **reordered(tensors, axes, orders)})
        after = one(views_VB3SS)
    torch.testing.assert_close(after["projection"], before["projection"], rtol=1e-3, atol=1e-5)
    stream = axes["projector.0.weight"][1]
    assert not torch.equal(orders[stream], torch.arange(len(orders[stream])))
    torch.testing.assert_close(after["embedding"], before["embedding"][..., orders[stream]], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_known_permutation_is_found(name: str, noise: float) -> None:
    """All groups at once, exactly, also under noise of a fifth of the weights' size."""
    tensors = floating(network(name))
    axes = axes_of(tensors)
    planted = random_orders(tensors, axes)
    generator = torch.Generator().manual_seed(3)
    noisy = {
        n: t + noise * (t.std() if t.ndim > 1 else 0) * torch.randn(t.shape, generator=generator)
        for n, t in tensors.items()
    }
    shuffled = reordered(noisy, axes, planted)
    found = match_channels(tensors, shuffled, axes)
    assert set(found) == set(planted)
    for group, order_C in found.items():
        assert torch.equal(planted[group][order_C], torch.arange(len(order_C))), group
    for layer, tensor in reordered(shuffled, axes, found).items():
        assert torch.equal(tensor, noisy[layer])


def test_equal_and_nearly_equal_arms_are_not_permuted() -> None:
    """Also where channels are equal to one another, so that several matchings are optimal."""
    tensors = floating(network("resnet18"))
    axes = axes_of(tensors)
    generator = torch.Generator().manual_seed(4)
    near = {n: t + 0.05 * t.abs().mean() * torch.randn(t.shape, generator=generator) for n, t in tensors.items()}
    zero = {n: torch.zeros_like(t) for n, t in tensors.items()}
    for reference, arm in ((tensors, tensors), (tensors, near), (zero, zero), (tensors, zero)):
        for order_C in match_channels(reference, arm, axes).values():
            assert torch.equal(order_C, torch.arange(len(order_C)))


def test_matching_never_makes_the_distance_larger() -> None:
    """Two unrelated networks become slightly closer."""
    one, other = (floating(network("resnet18", seed)) for seed in (0, 1))
    axes = axes_of(one)
    found = reordered(other, axes, match_channels(one, other, axes))
    weights = [n for n in axes if n.endswith((".weight", ".bias"))]
    before, after = (sum(float((one[n] - arm[n]).square().sum()) for n in weights) for arm in (other, found))
    assert after < 0.999 * before


def test_only_plain_resnets_are_matched() -> None:
    """A symmetry that is not known must not be guessed."""
    shapes = {"encoder.conv1.weight": (4, 3, 3, 3), "encoder.blocks.0.mlp.weight": (4, 4)}
    with pytest.raises(ValueError, match=r"tensor 'encoder\.blocks\.0\.mlp\.weight' is not part of a plain ResNet"):
        channel_axes(shapes)
    shapes = {name: tuple(t.shape) for name, t in floating(network("resnet18")).items()}
    shapes["encoder.layer1.0.conv2.weight"] = (8, 4, 3, 3)  # grouped
    with pytest.raises(ValueError, match=r"'encoder\.layer1\.0\.conv2\.weight' has 4 channels; other tensors have 8"):
        channel_axes(shapes)
