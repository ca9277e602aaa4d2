"""Permute a ResNet's channels so that one arm's weights are as close as possible to another's.

Permuting the channels between two layers does not change the function of a network, so a permutation may contribute to
the distance between weights. Source: weight matching, algorithm 1 of Ainsworth, Hayase, Srinivasa 2022, arXiv
2209.04836. It matches one group of channels after the other by linear assignment until nothing improves.

A group is a set of channels that several tensors share, such as a residual stream; C is its size.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from coupled.models.projector import linear_layers

FIXED = ""  # an axis that must not be permuted: colours, pixels of a kernel, outputs of the projector
_LEAST = 1e-9  # smallest relative improvement for which an order is changed


def channel_axes(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[str, ...]]:
    """Return the group of each axis for each tensor of a ResNet (timm's names) and its projector.

    Raises ValueError, which names the tensor, if the network is not a plain ResNet.
    """
    axes: dict[str, tuple[str, ...]] = {}

    def layer(module: str, output: str, inputs: str) -> None:
        """Set the groups of a convolution or linear layer; a norm layer has only `output`."""
        for name in [name for name in shapes if name.rpartition(".")[0] == module]:
            several = len(shapes[name]) > 1
            axes[name] = (output, inputs, *[FIXED] * (len(shapes[name]) - 2)) if several else (output,)

    stream = "stem"
    layer("encoder.conv1", stream, FIXED)
    layer("encoder.bn1", stream, FIXED)
    found = {match[1] for match in (re.match(r"(encoder\.layer\d+\.\d+)\.", name) for name in shapes) if match}
    for block in sorted(found, key=lambda name: [int(number) for number in re.findall(r"\d+", name)]):
        inside = sorted({name.split(".")[3] for name in shapes if name.startswith(f"{block}.conv")})
        shortcut = sorted({name.rpartition(".")[0] for name in shapes if name.startswith(f"{block}.downsample.")})
        after = f"{block}.out" if shortcut else stream
        inputs = stream
        for conv in inside:
            output = after if conv == inside[-1] else f"{block}.{conv}"
            layer(f"{block}.{conv}", output, inputs)
            layer(f"{block}.bn{conv.removeprefix('conv')}", output, inputs)
            inputs = output
        for module in shortcut:
            layer(module, after, stream)
        stream = after
    own = {name.removeprefix("projector."): shape for name, shape in shapes.items() if name.startswith("projector.")}
    linear = linear_layers(own)
    for position, following in pairwise(linear):
        output = f"projector.{position}"
        for each in range(position, following):  # the linear layer and its norm
            layer(f"projector.{each}", output, stream)
        stream = output
    for position in linear[-1:]:
        layer(f"projector.{position}", FIXED, stream)
    _check(shapes, axes)
    return axes


def _check(shapes: Mapping[str, Sequence[int]], axes: Mapping[str, Sequence[str]]) -> None:
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name.startswith("encoder.") and name not in axes:
            raise ValueError(f"tensor '{name}' is not part of a plain ResNet; permutations work only for plain ResNets")
        for group, size in zip(axes.get(name, ()), shape, strict=False):
            if group != FIXED and sizes.setdefault(group, size) != size:
                raise ValueError(f"tensor '{name}' has {size} channels; other tensors have {sizes[group]}")


def permuted(tensor: Tensor, axes: Sequence[str], orders: Mapping[str, Tensor]) -> Tensor:
    """Return the tensor with each axis in its group's order: position i gets channel order[i]."""
    for axis, group in enumerate(axes):
        if group in orders:
            tensor = tensor.index_select(axis, orders[group])
    return tensor


def match_channels(
    reference: Mapping[str, Tensor], arm: Mapping[str, Tensor], axes: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """Return for each group the order of `arm`'s channels that maximises the inner product with `reference`.

    The matching runs from two starts: the original order, and an order from matching the layers one after the other,
    each by the layers before it. The result is the better of the two, or the first if they are equal. Only parameters
    are used, no running statistics.
    """
    counted = {name: groups for name, groups in axes.items() if name.endswith((".weight", ".bias"))}
    sizes = {
        group: reference[name].shape[axis]
        for name, groups in counted.items()
        for axis, group in enumerate(groups)
        if group != FIXED
    }
    as_they_are = {group: torch.arange(size) for group, size in sizes.items()}
    one_by_one: dict[str, Tensor] = {}
    for group in sizes:
        one_by_one[group] = _assign(_similarity(reference, arm, counted, group, one_by_one, known_only=True))
    ends = [_improved(reference, arm, counted, start) for start in (as_they_are, one_by_one)]
    fits = [_inner_product(reference, arm, counted, orders) for orders in ends]
    return ends[1] if fits[1] > fits[0] + _LEAST * abs(fits[0]) else ends[0]


def in_matching_order(reference: Mapping[str, Tensor], arm: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `arm`'s tensors, running statistics included, with its channels in the order of `match_channels`.

    Its function does not change, except for the order of an embedding. Counters stay as they are. Raises ValueError as
    `channel_axes`.
    """
    axes = channel_axes({name: tuple(each.shape) for name, each in reference.items() if each.is_floating_point()})
    orders = match_channels(reference, arm, axes)
    return {name: permuted(tensor, axes.get(name, ()), orders) for name, tensor in arm.items()}


def _improved(
    reference: Mapping[str, Tensor],
    arm: Mapping[str, Tensor],
    axes: Mapping[str, Sequence[str]],
    orders: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Match group by group until none improves. Each step raises the inner product, so the loop terminates."""
    orders, improves = dict(orders), True
    while improves:
        improves = False
        for group, present_C in orders.items():
            similarity_CC = _similarity(reference, arm, axes, group, orders)
            better_C = _assign(similarity_CC)
            places_C = torch.arange(len(better_C))
            gain = float((similarity_CC[places_C, better_C] - similarity_CC[places_C, present_C]).sum())
            if gain > _LEAST * float(similarity_CC[places_C, present_C].abs().sum()):
                orders[group], improves = better_C, True
    return orders


def _similarity(
    reference: Mapping[str, Tensor],
    arm: Mapping[str, Tensor],
    axes: Mapping[str, Sequence[str]],
    group: str,
    orders: Mapping[str, Tensor],
    known_only: bool = False,
) -> Tensor:
    """Return inner products [C, C] of `reference`'s channels with `arm`'s over all tensors that have `group`.

    `known_only` restricts them to tensors whose other axes are fixed or in `orders`.
    """
    parts = []
    for name, groups in axes.items():
        others = [each for each in groups if each not in (group, FIXED)]
        if group in groups and not (known_only and any(each not in orders for each in others)):
            axis = list(groups).index(group)
            turned = permuted(arm[name], [FIXED if each == group else each for each in groups], orders)
            channels = turned.shape[axis]
            ours_Cx, theirs_Cx = (
                tensor.movedim(axis, 0).reshape(channels, -1).double() for tensor in (reference[name], turned)
            )
            parts.append(ours_Cx @ theirs_Cx.T)
    return torch.stack(parts).sum(0)


def _assign(similarity_CC: Tensor) -> Tensor:
    """Return the order with the largest sum of similarities."""
    return torch.from_numpy(linear_sum_assignment(similarity_CC.numpy(), maximize=True)[1])


def _inner_product(
    reference: Mapping[str, Tensor],
    arm: Mapping[str, Tensor],
    axes: Mapping[str, Sequence[str]],
    orders: Mapping[str, Tensor],
) -> float:
    return sum(
        float(reference[name].double().flatten().dot(permuted(arm[name], groups, orders).double().flatten()))
        for name, groups in axes.items()
    )
