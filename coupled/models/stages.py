"""The stages of an encoder, and activation checkpointing: their activations are computed again in the backward pass.

Only the input of each block of a stage is kept (Chen et al. 2016, arXiv 1604.06174).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Buffers = Sequence[tuple[nn.Module, str, Tensor]]


def stages(encoder: nn.Module) -> dict[str, nn.Module]:
    """Return the modules with parameters that the `feature_info` of `encoder` names, by name."""
    modules = dict(encoder.named_modules())
    named = {each["module"]: modules[each["module"]] for each in getattr(encoder, "feature_info", ())}
    return {name: module for name, module in named.items() if next(module.parameters(), None) is not None}


def blocks(encoder: nn.Module) -> list[nn.Module]:
    """Return the blocks of the stages: the children of a stage that is a sequence of blocks, else the stage itself."""
    found: list[nn.Module] = []
    for stage in stages(encoder).values():
        children = list(stage.children())
        in_blocks = isinstance(stage, nn.Sequential) and all([*each.children()] for each in children)
        found += children if in_blocks else [stage]
    return found


def recompute_blocks(encoder: nn.Module) -> None:
    """Make every block of `encoder` keep only its inputs, and compute its activations again in the backward pass.

    Results have the same bits: a block is computed again with the same random numbers and from the same buffers, and
    the second computation updates no buffer, so a batch norm counts each batch once. Ranks that share a batch compute
    the same blocks again in the same order, so a synchronized batch norm can gather in both computations. Raises
    ValueError for an encoder without stages.
    """
    found = blocks(encoder)
    if not found:
        raise ValueError("it names no stages that could be computed again; set activation_checkpointing=false")
    for block in found:
        block.forward = partial(_computed_twice, block, block.forward)


def _computed_twice(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    before = [
        (module, name, buffer.clone())
        for module in block.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    contexts = (nullcontext(), _with_buffers(before))
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: contexts, **options)


@contextmanager
def _with_buffers(buffers: Buffers) -> Iterator[None]:
    """Put these tensors in the place of the modules' buffers inside the block."""
    current = [(module, name, module.get_buffer(name)) for module, name, _ in buffers]
    try:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
        yield
    finally:
        for module, name, buffer in current:
            setattr(module, name, buffer)
