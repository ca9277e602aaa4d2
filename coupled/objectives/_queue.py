"""Queues of rows of past batches, which an objective keeps from step to step.

V views, G images of the global batch, K rows of a queue, P width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

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
