"""Feeds: for every step the batch of each stream; a stream feeds the arms with the same order and views."""

from collections.abc import Iterator, Mapping
from typing import Any

from coupled.config.controls import Draws
from coupled.datasets import AnyImageSet
from coupled.stream.batches import Batch, batches
from coupled.stream.sampler import order
from coupled.stream.view_plan import Augmentation, view_plan


def digest_column(stream: str) -> str:
    """The column of steps.csv with the digests of the inputs of a stream."""
    return f"{stream}_inputs_digest" if stream else "inputs_digest"


def feeds(
    epoch: int,
    start: int = 0,
    *,
    images: AnyImageSet,
    streams: Mapping[str, Draws],
    seed: int,
    batch_size: int,
    kind: str,
    augmentation: Augmentation,
    **place: Any,
) -> Iterator[dict[str, Batch]]:
    """The steps of an epoch from number `start` on: the batch of each of the `streams`, whose draws are given.

    `place` is of `batches`: size of a view, rank, world size, device, workers.
    """
    labels_N = images.labels_N.numpy()
    iterators = [
        batches(
            images,
            order(draws.seed("order", seed), epoch, labels_N, batch_size, kind),
            view_plan(draws.seed("views", seed), epoch, len(images), augmentation),
            epoch=epoch,
            start=start,
            stream=number,
            streams=len(streams),
            **place,
        )
        for number, draws in enumerate(streams.values())
    ]
    for each in zip(*iterators, strict=True):
        yield dict(zip(streams, each, strict=True))
