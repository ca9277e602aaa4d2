"""The global batches of an epoch -> this rank's slice of each -> views on the device, once for all arms.

V views, B images of this rank, N images of the global batch, K batches of the epoch, S side of a view.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.image_sets import ImageSet
from coupled.stream.augment import augment, normalise
from coupled.stream.view_plan import EpochPlan, inputs_digest


@dataclass(frozen=True, eq=False)
class Batch:
    """What every arm gets at one step. Own image b is image `first` + b of the global batch."""

    epoch: int
    number: int  # k: the place within the epoch, from 0
    views_VB3SS: Tensor
    labels_B: Tensor
    indices_B: Tensor
    labels_N: Tensor
    indices_N: Tensor
    first: int
    inputs_digest: str


def batches(
    image_set: ImageSet,
    order_KN: NDArray[np.int64],
    plan: EpochPlan,
    *,
    epoch: int,
    size: int,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    start: int = 0,
    workers: int = 0,
) -> Iterator[Batch]:
    """The batches `start`, `start` + 1, ... of an epoch, as rank `rank` sees them.

    Every batch is a function of (order, plan, rank): `workers` threads prepare batches ahead and change nothing. An
    error in a worker is raised here. The digest is that of the global batch, so it is the same on every rank.
    """
    device = torch.device(device)
    images_N3HW, labels_N = image_set.images_N3HW.to(device), image_set.labels_N.to(device)
    own = order_KN.shape[1] // world_size

    def batch(number: int) -> Batch:
        indices_N = order_KN[number]
        plan_N = plan[indices_N]
        cut = slice(rank * own, (rank + 1) * own)
        places_N = torch.from_numpy(indices_N).to(device)
        views_VB3SS = augment(images_N3HW[places_N[cut]], plan_N[cut], size)
        return Batch(
            epoch=epoch,
            number=number,
            views_VB3SS=normalise(views_VB3SS, image_set.mean, image_set.std),
            labels_B=labels_N[places_N[cut]],
            indices_B=places_N[cut],
            labels_N=labels_N[places_N],
            indices_N=places_N,
            first=rank * own,
            inputs_digest=inputs_digest(indices_N, plan_N),
        )

    numbers = range(start, len(order_KN))
    return map(batch, numbers) if workers == 0 else _ahead(batch, numbers, workers)


def _ahead(batch: Callable[[int], Batch], numbers: range, workers: int) -> Iterator[Batch]:
    """`map(batch, numbers)` with at most `workers` batches in preparation or ready."""
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for number in numbers:
                waiting.append(pool.submit(batch, number))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
