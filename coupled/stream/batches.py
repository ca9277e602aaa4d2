"""Turn global batches into the views of this rank: split, augment, normalise, and prefetch in threads or processes.

Shape letters: G images of the global batch, B images of this rank, W world size (G = W * B), V views, S side of a
view, K batches of the epoch.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coupled.datasets import AnyImageDataset, ImageFiles
from coupled.stream.augment import augment, augment_further, mix_views, normalise, send
from coupled.stream.crops import boxes_and_flips
from coupled.stream.decoding import augment_crops, crops, workers_for
from coupled.stream.mixing import partners, rows_needed, weights_of
from coupled.stream.recipe import Augmentation
from coupled.stream.sampler import order
from coupled.stream.view_plan import EpochPlan, ViewPlan, inputs_digest, view_plan


@dataclass(frozen=True, eq=False)
class Batch:
    """The input of one step for this rank, on its device; image b is image `first + b` of the global batch."""

    epoch: int
    number: int  # index in the epoch, from 0
    views_VB3SS: Tensor  # float32, normalised
    labels_B: Tensor  # int64
    indices_B: Tensor  # int64, indices in the dataset
    labels_G: Tensor
    indices_G: Tensor
    first: int
    inputs_digest: str  # of the global batch: equal on every rank and for every world size
    local_VB3SS: Tensor | None = None  # local views; None if there are none
    partner_labels_B: Tensor | None = None  # labels of the images that the views are mixed with; None: not mixed
    own_weight_VB: Tensor | None = None  # float32, weight of the own label; the partner's has the rest
    # `boxes_and_flips` of the views, computed when it is called; None for images on the disk
    boxes: Callable[[], Tensor] | None = None


def step_batches(
    epoch: int,
    start: int = 0,
    *,
    dataset: AnyImageDataset,
    seeds: Mapping[str, tuple[int, int]],
    batch_size: int,
    sampler: str,
    augmentations: Mapping[str, Augmentation],
    **place: Any,
) -> Iterator[dict[str, Batch]]:
    """Yield the batches of the steps of an epoch from number `start` on, as a mapping from stream to batch.

    Args:
        epoch: counted from 1.
        start: the first step, counted from 0 in the epoch.
        dataset: the images of all streams.
        seeds: for each stream, the seed of its order and the seed of its views.
        batch_size: number of images of the global batch.
        sampler: "uniform" or "balanced".
        augmentations: the augmentation of each stream; streams with one seed of the views have the same random draws.
        **place: `size`, `rank`, `world_size`, `device` and `workers` of `batches`.
    """
    labels_N = dataset.labels_N.numpy()
    iterators = [
        batches(
            dataset,
            order(order_seed, epoch, labels_N, batch_size, sampler),
            view_plan(views_seed, epoch, len(dataset), augmentations[name]),
            epoch=epoch,
            start=start,
            stream=number,
            streams=len(seeds),
            **place,
        )
        for number, (name, (order_seed, views_seed)) in enumerate(seeds.items())
    ]
    for each in zip(*iterators, strict=True):
        yield dict(zip(seeds, each, strict=True))


def batches(
    dataset: AnyImageDataset,
    order_KG: NDArray[np.int64],
    plan: EpochPlan,
    *,
    epoch: int,
    size: int,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    start: int = 0,
    workers: int | None = None,
    stream: int = 0,
    streams: int = 1,
) -> Iterator[Batch]:
    """Yield the batches of an epoch from number `start` on, with views of `size` pixels per side, for one rank.

    Rank r of W gets positions r*B to (r+1)*B of each global batch. A dataset in memory is copied to the device. With
    `workers` > 0, as many threads compute batches in advance, at most two per thread. For images on the disk,
    `workers` is the number of processes that decode for this `stream` of `streams` (None: see `workers_for`). The
    number of workers does not change the batches, and their errors are raised here. Raises ValueError if the global
    batch does not divide into equal parts.
    """
    if order_KG.shape[1] % world_size:
        raise ValueError(
            f"batch.size: got {order_KG.shape[1]} with {world_size} processes;"
            f" allowed are multiples of {world_size}, so that all processes have the same number of images"
        )
    make = partial(
        _batch, on_device(dataset, device), order_KG, plan, epoch, size, rank, world_size, torch.device(device)
    )
    numbers = range(start, len(order_KG))
    if isinstance(dataset, ImageFiles):
        own = _own(order_KG.shape[1], rank, world_size)
        rows_KM = [places_G[_rows(plan, places_G, own)] for places_G in order_KG[start:]]
        return map(make, numbers, crops(dataset, rows_KM, plan, size, workers_for(workers, device, streams), stream))
    return _prefetched(make, numbers, workers) if workers else map(make, numbers)


def on_device(dataset: AnyImageDataset, device: torch.device | str) -> AnyImageDataset:
    """Return a dataset in memory with its uint8 pixels on the device; other datasets are returned unchanged."""
    if isinstance(dataset, ImageFiles) or dataset.images_N3HW.device == torch.device(device):
        return dataset
    return replace(dataset, images_N3HW=dataset.images_N3HW.to(device))


def _batch(
    dataset: AnyImageDataset,
    order_KG: NDArray[np.int64],
    plan: EpochPlan,
    epoch: int,
    size: int,
    rank: int,
    world_size: int,
    device: torch.device,
    number: int,
    crops_of_sizes: Sequence[Tensor] | None = None,
) -> Batch:
    places_G = order_KG[number]
    own = _own(len(places_G), rank, world_size)
    plans, mix = [(side, each[places_G]) for side, each in plan.of_sizes(size)], plan.mix(places_G)
    rows_M, indices_G, steps = _rows(plan, places_G, own), torch.from_numpy(places_G), plan.augmentation.steps
    indices_M = send(indices_G[rows_M], device)
    labels_G, indices_G = send(dataset.labels_N[indices_G], device), send(indices_G, device)
    views_VB3SS, *local = (
        normalise(_views(dataset, indices_M, each[rows_M], side, crops_VB3SS, steps), dataset.mean, dataset.std)
        for (side, each), crops_VB3SS in zip(plans, crops_of_sizes or repeat(None), strict=False)
    )
    partner_labels_B = own_weight_VB = None
    if mix:
        views_VB3SS = mix_views(views_VB3SS, mix, own)
        partner_labels_B = labels_G[send(mix.partner_G[own], device)]
        own_weight_VB = send(weights_of(mix, size)[own].T.float().contiguous(), device)
    boxes = None
    if not isinstance(dataset, ImageFiles):
        boxes = partial(boxes_and_flips, plans[0][1][own], *dataset.images_N3HW.shape[2:])
    return Batch(
        epoch=epoch,
        number=number,
        views_VB3SS=views_VB3SS,
        labels_B=labels_G[own],
        indices_B=indices_G[own],
        labels_G=labels_G,
        indices_G=indices_G,
        first=own.start,
        inputs_digest=inputs_digest(places_G, *(each for _, each in plans), mix=mix),
        local_VB3SS=local[0] if local else None,
        partner_labels_B=partner_labels_B,
        own_weight_VB=own_weight_VB,
        boxes=boxes,
    )


def _views(
    dataset: AnyImageDataset,
    indices_B: Tensor,
    plan: ViewPlan,
    size: int,
    crops_VB3SS: Tensor | None,
    steps: Sequence[Callable[..., Tensor]],
) -> Tensor:
    """Return the views of these images, from their crops if they are on the disk: [V, B, 3, S, S] in [0, 1]."""
    if isinstance(dataset, ImageFiles):
        assert crops_VB3SS is not None
        views_VB3SS = augment_crops(send(crops_VB3SS, indices_B.device), plan)
    else:
        views_VB3SS = augment(dataset.images_N3HW.index_select(0, indices_B), plan, size)
    return augment_further(views_VB3SS, plan, steps)


def _own(images: int, rank: int, world_size: int) -> slice:
    return slice(rank * images // world_size, (rank + 1) * images // world_size)


def _rows(plan: EpochPlan, places_G: NDArray[np.int64], own: slice) -> NDArray[np.int64] | slice:
    """Return the positions of the global batch whose views this rank makes: its own, then those to mix them with."""
    if plan.mix_VNR is None:
        return own
    return rows_needed(partners(plan.mix_VNR[0, places_G, 0]), own)


def _prefetched(make: Callable[[int], Batch], numbers: Iterable[int], workers: int) -> Iterator[Batch]:
    """Yield `map(make, numbers)` in order, computed in advance in threads."""
    waiting: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
    try:
        for number in numbers:
            waiting.append(pool.submit(make, number))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also if the caller stops early
        pool.shutdown(cancel_futures=True)
