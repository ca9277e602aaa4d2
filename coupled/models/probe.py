"""Probe a network with one forward and backward pass of zeros before the run writes anything.

The probe shows whether a model works at the image size, and how much memory a step needs.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from coupled.models.encoders import FAILURES, failures_named
from coupled.models.network import Network, build_network
from coupled.models.stages import blocks, recompute_blocks
from coupled.stream.seeds import torch_rng

IMAGES = 2  # the minimum for batch norm


class Probe(NamedTuple):
    """Result of a probe.

    A forward pass of n images keeps `saved` + n * `saved_an_image` bytes for the backward pass. `weights` are the bytes
    of all parameters and buffers. `unused` names the parameters that no output depends on.
    """

    saved: int
    saved_an_image: int
    weights: int
    unused: frozenset[str]


def largest(probes: Sequence[Probe]) -> Probe:
    """Return the largest numbers of the probes of arms with different projectors, which take their steps in turn."""
    saved, saved_an_image, weights = (max(column) for column in zip(*(each[:3] for each in probes), strict=True))
    return Probe(saved, saved_an_image, weights, probes[0].unused)


@functools.cache
def outline(precision: str, recomputed: bool = False, **network: Any) -> Probe | None:
    """Probe the network of these arguments of `build_network` on torch's device "meta", which allocates no memory.

    Returns None for a model that does not work there because it needs values. `recomputed` is that of `probe`.
    """
    try:
        with torch.device("meta"):
            return _pass(build_network(**network), network["image_size"], precision, torch.device("meta"), recomputed)
    except FAILURES:
        return None


@functools.cache
def probe(device: torch.device, precision: str, recomputed: bool = False, **network: Any) -> Probe:
    """Probe the network of these arguments of `build_network` on `device`; cached, and no random generator changes.

    With `recomputed` the activations of the encoder's blocks are computed again in the backward pass. Raises ValueError
    for a model that does not work, and for one whose gradient is wrong in bfloat16 on a CPU.
    """
    built = build_network(**network)
    wrong = _wrong_in_bfloat16(built.encoder) if precision == "bfloat16" and device.type == "cpu" else []
    keys = f"dataset.image_size {network['image_size']}" + ", activation_checkpointing true" * recomputed
    with failures_named(network["encoder"], keys):
        seen = _pass(built, network["image_size"], precision, device, recomputed)
    _check_bfloat16(wrong, "dataset.image_size")
    return seen


@functools.cache
def check_local_size(device: torch.device, precision: str, size: int, **network: Any) -> None:
    """Raise ValueError as `probe` does if the network does not work on local views of `size` pixels per side."""
    built = build_network(**network)
    wrong = _wrong_in_bfloat16(built.encoder) if precision == "bfloat16" and device.type == "cpu" else []
    with failures_named(network["encoder"], f"augmentation.local_size {size}"), torch.no_grad():
        built.eval()(torch.zeros(1, 1, 3, size, size))
    _check_bfloat16(wrong, "augmentation.local_size")


def _check_bfloat16(wrong: list[str], key: str) -> None:
    if wrong:
        raise ValueError(
            f"precision: got bfloat16; on a CPU oneDNN computes a wrong bfloat16 gradient for convolution '{wrong[0]}',"
            f" whose input is smaller than its stride: set precision=float32 or a larger {key}"
        )


def _pass(network: Network, size: int, precision: str, device: torch.device, recomputed: bool) -> Probe:
    dtype = torch.float64 if precision == "float64" else torch.float32
    network = network.to(device, dtype).train()
    kind = "cpu" if device.type == "meta" else device.type  # autocast does not support "meta"
    again = blocks(network.encoder) if recomputed else []

    def forward(images: int) -> tuple[dict[str, Tensor], int]:
        views = torch.zeros(1, images, 3, size, size, device=device, dtype=dtype)
        drawn = torch_rng(0, "probe", device=device)
        with drawn, torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16"):
            return _forward(network, views, again)

    (_, more), (outputs, fewer) = forward(2 * IMAGES), forward(IMAGES)
    if recomputed:  # after the blocks were measured
        recompute_blocks(network.encoder)
        outputs, _ = forward(IMAGES)
    if device.type != "meta":
        torch.stack([output.sum() for output in outputs.values()]).sum().backward()
    an_image = (more - fewer) // IMAGES
    weights = sum(tensor.nbytes for tensor in [*network.parameters(), *network.buffers()])
    unused = frozenset(name for name, parameter in network.named_parameters() if parameter.grad is None)
    return Probe(max(0, fewer - IMAGES * an_image), an_image, weights, unused)


def _forward(network: Network, views_VBchw: Tensor, again: Sequence[nn.Module]) -> tuple[dict[str, Tensor], int]:
    """Return the outputs, and the bytes that autograd keeps for the backward pass, without the weights.

    Of the blocks `again`, whose activations are computed again, only the inputs are kept; while a block is computed
    again there are also its activations.
    """
    own = {tensor.untyped_storage()._cdata for tensor in [*network.parameters(), *network.buffers()]}
    saved: dict[int, tuple[Tensor, int]] = {}  # storage -> tensor, and the number of the block; 0 is outside
    inputs, running = [0], [0]  # bytes of the inputs of each block; number of the running block

    def save(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()._cdata) not in own:
            saved.setdefault(storage, (tensor, running[0]))  # kept alive, so that its storage is not reused
        return tensor

    def enter(_block: nn.Module, given: tuple[Any, ...]) -> None:
        running[0] = len(inputs)
        inputs.append(sum(each.nbytes for each in given if isinstance(each, Tensor)))

    def leave(*_: Any) -> None:
        running[0] = 0

    hooks = [each.register_forward_pre_hook(enter) for each in again]
    hooks += [each.register_forward_hook(leave) for each in again]
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        outputs = network(views_VBchw)
    for hook in hooks:
        hook.remove()
    inside = [0] * len(inputs)
    for tensor, number in saved.values():
        inside[number] += tensor.untyped_storage().nbytes()
    at_blocks = [sum(inputs[: k + 1]) + inside[k] for k in range(1, len(inputs))]
    return outputs, inside[0] + max([sum(inputs), *at_blocks])


def _wrong_in_bfloat16(encoder: nn.Module) -> list[str]:
    """Return a list that later passes fill with convolutions whose gradient oneDNN computes wrongly in bfloat16.

    Observed on a CPU with torch 2.15: with stride 2 over an input smaller than the stride, the kernel weights that
    touch no pixel get a gradient of uninitialised memory. torch's own convolution is correct, but 100 times slower.
    """
    wrong: list[str] = []

    def look(name: str, layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        sides = zip(inputs[0].shape[2:], layer.stride, layer.kernel_size, strict=True)
        if any(side < step and kernel > 1 for side, step, kernel in sides):
            wrong.append(name)

    for name, layer in encoder.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(functools.partial(look, name))
    return wrong
