"""Objectives with a queue of rows of past batches: the queue, and the mean over pairs of views.

V views, G images of the global batch, K rows of a queue, P width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from coupled.objectives._anchors import AnchorLosses

LARGEST = 2**24  # rows


def check_queue(**sizes: int) -> None:
    """Raise ValueError for the first size of a queue that is not from 1 to `LARGEST`."""
    for name, size in sizes.items():
        if not 1 <= size <= LARGEST:
            raise ValueError(f"{name}: {size} is not allowed; give a number of rows from 1 to {LARGEST}")


def enqueued(tensors: Mapping[str, Tensor], name: str, new_VGP: Tensor, step: int) -> dict[str, Tensor]:
    """Return the kept queue `name` with its oldest rows replaced by the rows of step `step` (the first is 1).

    Every step adds the same number of rows, so the place of the oldest follows from the step. A batch with more rows
    than the queue leaves its last ones.
    """
    queue_KP, rows_MP = tensors[f"kept.{name}"].clone(), new_VGP.flatten(0, 1)
    size, added = len(queue_KP), len(rows_MP)
    places_M = ((step - 1) * added + torch.arange(added, device=queue_KP.device)) % size
    queue_KP[places_M[-size:]] = rows_MP[-size:].to(queue_KP.dtype)
    return {f"kept.{name}": queue_KP}


def mean_over_other_views(losses_VWB: Tensor, *, counts: bool) -> AnchorLosses:
    """Return the mean over the other views w of the losses of view v with view w: one loss for each view of an image.

    With one view, or if not `counts`, no anchor counts.
    """
    views = len(losses_VWB)
    losses_A = (losses_VWB.sum(1) - losses_VWB.diagonal().T).div(max(views - 1, 1)).flatten()
    return AnchorLosses(losses_A, torch.full_like(losses_A, views > 1 and counts, dtype=torch.bool))
