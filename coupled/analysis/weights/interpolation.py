"""Weights on the straight line between two networks, and batch-norm statistics for them.

Weights between those of two networks give other activations, so the running averages of neither network fit them.
Therefore the statistics are measured again (arXiv 2211.08403, REPAIR, discusses why). N images, C channels.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def interpolate(one: Mapping[str, Tensor], other: Mapping[str, Tensor], position: float) -> dict[str, Tensor]:
    """Return (1 - position) * one + position * other, tensor by tensor, with the shapes and types of `one`.

    Computed in float64, so equal tensors stay equal to the last bit, and the ends are exactly the two networks. Tensors
    of integers, such as counters of batches, are those of `one`. Tensors that `other` lacks are left out.
    """
    return {
        name: ((1 - position) * tensor.double() + position * other[name].double()).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in one.items()
        if name in other
    }


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the batch-norm layers of a network that have running averages."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def renew_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running averages of every batch norm by mean and unbiased variance over all images of `batches`.

    The images pass through the network once, batch by batch. Meanwhile each layer normalises by the statistics of the
    batch, as in training; all other modules stay as they are. The sums over batches are exact (Chan et al. 1983) and in
    float64. `network` takes views [1, N, 3, S, S]; a batch [N, 3, S, S] needs two images or more.
    """
    layers = batch_norms(network)
    moments: dict[_BatchNorm, tuple[int, Tensor, Tensor]] = {}  # values, mean [C], sum of squared deviations [C]
    kept = [(layer, layer.training, layer.num_batches_tracked) for layer in layers]

    def add(layer: Any, inputs: tuple[Tensor]) -> None:
        x = inputs[0].detach().double().transpose(0, 1).flatten(1)
        mean_C, count = x.mean(1), x.shape[1]
        squares_C = (x - mean_C[:, None]).square().sum(1)
        if layer in moments:
            before, mean_before_C, squares_before_C = moments[layer]
            shift_C, whole = mean_C - mean_before_C, before + count
            mean_C = mean_before_C + shift_C * (count / whole)
            squares_C = squares_C + squares_before_C + shift_C.square() * (before * count / whole)
            count = whole
        moments[layer] = (count, mean_C, squares_C)

    hooks = [layer.register_forward_pre_hook(add) for layer in layers]
    try:
        for layer in layers:
            layer.train()
            layer.num_batches_tracked = None  # torch counts batches only if this is set
        for batch_N3SS in batches:
            network(batch_N3SS[None])
    finally:
        for hook, (layer, training, tracked) in zip(hooks, kept, strict=True):
            hook.remove()
            layer.train(training)
            layer.num_batches_tracked = tracked
    for layer, (count, mean_C, squares_C) in moments.items():
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(mean_C)
        layer.running_var.copy_(squares_C / (count - 1))
