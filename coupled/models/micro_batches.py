"""Micro-batches: the encoder sees a part of the batch at a time, and the gradient is that of the whole batch.

The embeddings of all parts are computed without their graph. Projector, heads and objective see the whole batch, and
their backward pass gives the gradient of the loss by the embeddings. Each part is then computed again and passed this
gradient. Source: Gao et al. 2021, arXiv 2101.06983 (GradCache).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from coupled.models.batch_norm import GlobalBatchNorm
from coupled.stream.seeds import generator_states, torch_rng

TOLERANCE = 0.01  # of the norm of an embedding; TF32 rounds to 0.001


def use_micro_batches(encoder: nn.Module, images: int, views: int, image_size: int) -> None:
    """Make `encoder` see at most as many views at a time as `images` images have, with `views` views each.

    autograd adds up the gradients of the parts before a parameter has its gradient, so DDP reduces it once. Raises
    ValueError for an encoder whose outputs or buffers depend on which images it sees together.
    """
    if reason := _depends(encoder, image_size):
        raise ValueError(
            f"batch.micro_batch: got {images}, but {reason}, so the gradient would not be that of the whole batch; set"
            " it to null, or use an encoder that treats each image by itself"
        )
    encoder.forward = partial(_in_parts, encoder.forward, images * views)


def _in_parts(forward: Callable[[Tensor], Tensor], rows: int, images_M3SS: Tensor) -> Tensor:
    parts = images_M3SS.split(rows)
    if len(parts) == 1:
        return forward(images_M3SS)
    return torch.cat([checkpoint(forward, part, use_reentrant=False, preserve_rng_state=False) for part in parts])


@torch.no_grad()
def _depends(encoder: nn.Module, size: int) -> str:
    """Return how the result for an image depends on the batch that it is in; "" if it does not."""
    for name, module in encoder.named_modules():
        if isinstance(module, _BatchNorm | GlobalBatchNorm) and module.training:
            return f"batch norm '{name}' of the encoder normalises over the images that it sees together"
    weight = next(encoder.parameters())
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    pixels = torch.linspace(-2, 2, 2 * 3 * size * size, device=weight.device, dtype=weight.dtype)
    images_23SS = pixels.view(2, 3, size, size)  # a dark image and a bright one
    with torch_rng(0, "micro_batch", device=weight.device):
        states = generator_states(weight.device)
        together_2D = encoder(images_23SS)
        if generator_states(weight.device) != states:
            return "the encoder draws random numbers, such as dropout"
        apart_2D = torch.cat([encoder(image_13SS) for image_13SS in images_23SS.split(1)])
    for name, buffer in encoder.named_buffers():
        if not torch.equal(buffer, before[name]):
            return f"the encoder changes its buffer '{name}' with every batch"
    if float((together_2D - apart_2D).norm() / together_2D.norm()) > TOLERANCE:
        return "the embedding of an image depends on the other images of the batch"
    return ""
