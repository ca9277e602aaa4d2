"""Losses of single anchors computed block by block, so that no matrix of all anchors and rows is ever stored.

A anchors of this process, M rows of the global batch (see `coupled.objectives`).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Concatenate, ParamSpec

import torch
from torch.utils.checkpoint import checkpoint

from coupled.objectives import Inputs
from coupled.objectives._anchors import AnchorLosses

Options = ParamSpec("Options")
PerAnchor = Callable[Concatenate[Inputs, Options], AnchorLosses]

WHOLE = 2**24  # entries of A x M from which blocks are as fast on a CPU: B = 2 048 with two views in one process
BLOCK_CPU = 2**20  # entries of a block; larger blocks leave the processor's cache
BLOCK_GPU = 2**22  # small blocks would keep a GPU waiting for launches (not measured)


def in_blocks(per_anchor: "PerAnchor[Options]") -> "PerAnchor[Options]":
    """Let a function of the anchors' losses work on blocks of images if A x M has `WHOLE` entries or more.

    The loss of an anchor depends on its own projection and on all rows, not on other anchors. So a block is the same
    as the part of a further process. Its matrices are freed after the forward pass and computed again in the backward
    pass. Smaller batches are computed at once, with the same bits as without this function.
    """

    @wraps(per_anchor)
    def of_blocks(inputs: Inputs, *arguments: Options.args, **options: Options.kwargs) -> AnchorLosses:
        views, images = inputs.views, len(inputs.labels_B)
        entries = views * views * len(inputs.labels_G)  # of one image
        if images * entries < WHOLE:
            return per_anchor(inputs, *arguments, **options)
        size = max(1, (BLOCK_CPU if inputs.labels_B.device.type == "cpu" else BLOCK_GPU) // entries)

        def of_block(first: int) -> AnchorLosses:
            return per_anchor(_images(inputs, first, first + size), *arguments, **options)

        blocks = [
            checkpoint(of_block, first, use_reentrant=False, preserve_rng_state=False)
            for first in range(0, images, size)
        ]
        # anchors are ordered by view, then by image
        return AnchorLosses(
            *(torch.cat([part.view(views, -1) for part in parts], 1).flatten() for parts in zip(*blocks, strict=True))
        )

    return of_blocks


def _images(inputs: Inputs, first: int, end: int) -> Inputs:
    """Return the inputs of a process that would have only these images of this process as its own."""
    outputs = {name: output[:, first:end] for name, output in inputs.outputs.items()}
    return replace(inputs, outputs=outputs, labels_B=inputs.labels_B[first:end], first=inputs.first + first)
