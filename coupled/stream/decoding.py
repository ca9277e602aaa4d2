"""Decode image files into crops of one size, in worker processes that live as long as the program.

A worker decodes an image, crops and resizes it by the plan. The colour operations of the plan are applied later to the
whole batch on the device (`augment_crops`). A crop depends only on its file and its plan, so the number of workers
changes only the time. Crops are rounded to 8 bits, so a view differs by about one grey level from the view of the same
image in memory.

Shape letters: B images, V views, S side of a view, H, W sides of an image.
"""

import os
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import fields, replace
from functools import lru_cache
from multiprocessing import resource_tracker
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from coupled.datasets import ImageFiles
from coupled.datasets._pillow import read_picture, undecodable
from coupled.stream.augment import augment
from coupled.stream.crops import crop_box
from coupled.stream.view_plan import EpochPlan, ViewPlan

CHUNK = 32  # images per request to a worker; a global batch is several requests
STREAMS = 64  # streams whose workers are kept; a run with more streams would restart its workers in every epoch
MOST_WORKERS = 16  # if `dataset.num_workers` is not set
AHEAD = 4  # chunks a worker may be ahead: with 8 workers 1 024 images of 224 px, 300 MB
# Workers ignore these signals: Ctrl-C and schedulers send them to all processes of a run, but the run needs its workers
# for the last step. SIGTERM is ignored only on Linux, where a worker can see whether its own program sent the signal.
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGUSR1, *((signal.SIGTERM,) if hasattr(signal, "sigwaitinfo") else ()))


class Request(NamedTuple):
    """Image files to read, and the plans of their views by size; without a plan, the largest central square of each."""

    paths: list[Path]
    wanted: Sequence[tuple[int, EpochPlan | None]]


def crops(
    images: ImageFiles,
    batches_KB: Sequence[NDArray[np.int64]],
    plan: EpochPlan | None,
    size: int,
    workers: int,
    stream: int = 0,
) -> Iterator[list[Tensor]]:
    """Yield for each batch of image numbers the crops of the views, uint8 [V, B, 3, S, S] on the CPU.

    If the plan has local views, their crops follow. Without a plan V is 1, and the crop is the largest central square.
    With `workers` = 0 the images are decoded in this process. Only one such iterator can be in use for each `stream`
    and number of workers. Raises ValueError for a file that does not decode.
    """
    with closing(_pool(workers, stream).run(_requests(images, batches_KB, plan, size))) as results:
        for batch_B in batches_KB:
            parts = [next(results) for _ in range(0, len(batch_B), CHUNK)]
            for part in parts:
                if isinstance(part, str):
                    raise ValueError(part)
            yield [torch.cat(of_size, dim=1) for of_size in zip(*parts, strict=True)]


def faults(paths_K: Sequence[list[Path]], workers: int) -> Iterator[list[str]]:
    """Yield for each list of image files the error of each file, "" if it decodes.

    With `workers` = 0 threads of this process decode the files; otherwise the workers of `crops` do.
    """
    if workers == 0:
        with ThreadPoolExecutor() as threads:
            yield from threads.map(undecodable, paths_K)
        return
    with closing(_pool(workers, 0).run(paths for paths in paths_K)) as results:
        yield from results


def workers_for(given: int | None, device: torch.device | str, streams: int = 1) -> int:
    """Return the number of processes that decode for a stream.

    This is `given`, or else the usable cores per process of the run on this machine, at most 16, divided by `streams`
    and at least 1. It is 0 if the networks run on the CPU, because they need the cores.
    """
    if given is not None:
        return given
    if torch.device(device).type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))) // streams)


def augment_crops(crops_VB3SS: Tensor, plan: ViewPlan) -> Tensor:
    """Apply the rest of the plan to crops; equals `augment` up to 8-bit rounding of the crops: [V, B, 3, S, S]."""
    views, batch = crops_VB3SS.shape[:2]
    every = {field.name: getattr(plan, field.name) for field in fields(plan)}
    own: dict[str, Any] = {
        name: part_BV.transpose(0, 1).flatten(0, 1)[:, None]
        for name, part_BV in every.items()
        if isinstance(part_BV, Tensor)
    }
    for name, whole in {
        "crop_area_BVT": 1,
        "crop_aspect_BVT": 1,
        "crop_top_BV": 0,
        "crop_left_BV": 0,
        "flip_BV": 0,
    }.items():
        own[name] = torch.full_like(own[name], whole)
    size = crops_VB3SS.shape[-1]
    whole_plan = replace(plan, crop_ratios=plan.crop_ratios[:1], **own)
    return augment(crops_VB3SS.flatten(0, 1), whole_plan, size)[0].unflatten(0, (views, batch))


def read(request: Request) -> list[Tensor] | str:
    """Return the crops of a request, uint8 [V, B, 3, S, S] of each size, or the text of an error."""
    try:
        pictures = [read_picture(path) for path in request.paths]
    except ValueError as error:
        return str(error)
    return [_crops(pictures, size, plan) for size, plan in request.wanted]


def _crops(pictures: list[Tensor], size: int, epoch_plan: EpochPlan | None) -> Tensor:
    if epoch_plan is None:
        boxes = [_central(picture_3HW) for picture_3HW in pictures]
        flips_BV = torch.zeros(len(pictures), 1, dtype=torch.bool)
    else:
        plan = epoch_plan[np.arange(len(pictures))]
        boxes = [crop_box(plan[b : b + 1], *picture.shape[1:])[0] for b, picture in enumerate(pictures)]
        flips_BV = plan.flip_BV
    return torch.stack(
        [
            torch.stack([_crop(picture, box_4, flip, size) for box_4, flip in zip(boxes_V4, flips_V, strict=True)])
            for picture, boxes_V4, flips_V in zip(pictures, boxes, flips_BV, strict=True)
        ],
        dim=1,
    )


def _requests(
    images: ImageFiles, batches_KB: Iterable[NDArray[np.int64]], plan: EpochPlan | None, size: int
) -> Generator[Request]:
    root = images.root.absolute()  # a worker may have been started in another directory
    for batch_B in batches_KB:
        for start in range(0, len(batch_B), CHUNK):
            part = batch_B[start : start + CHUNK]
            wanted = [(side, each.for_crops(part)) for side, each in plan.of_sizes(size)] if plan else [(size, None)]
            yield Request([root / images.files_N[number] for number in part.tolist()], wanted)


def _central(picture_3HW: Tensor) -> Tensor:
    height, width = picture_3HW.shape[1:]
    side = min(height, width)
    return torch.tensor([[(height - side) // 2, (width - side) // 2, side, side]])


def _crop(picture_3HW: Tensor, box_4: Tensor, flip: Tensor, size: int) -> Tensor:
    """Return the box (top, left, height, width) of an image, resized and mirrored if `flip`, uint8 [3, S, S]."""
    top, left, high, wide = box_4.tolist()
    cut_13HW = picture_3HW[None, :, top : top + high, left : left + wide]
    crop_3SS = F.interpolate(cut_13HW, size=(size, size), mode="bilinear", antialias=True)[0]
    return crop_3SS.flip(-1) if flip else crop_3SS


class _Reading(Dataset[Any]):
    def __getitem__(self, request: Request | list[Path]) -> list[Tensor] | str | list[str]:
        return read(request) if isinstance(request, Request) else undecodable(request)


class _Requests:
    """The requests of the loader: replaced for every epoch, while the workers are kept."""

    wanted: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.wanted)


@contextmanager
def _ignore_signals() -> Iterator[None]:
    """Block `IGNORED_SIGNALS`: processes started inside never receive them; this process receives them afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
    try:
        resource_tracker.ensure_running()  # its start unblocks some of the signals
        signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(worker: int) -> None:
    """In a worker, exit on SIGTERM if it was sent by the program that started the worker."""

    def wait() -> None:
        while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
            pass
        os._exit(0)

    if signal.SIGTERM in IGNORED_SIGNALS:
        Thread(target=wait, daemon=True).start()


class _Pool:
    def __init__(self, workers: int) -> None:
        self.requests, self.uses = _Requests(), 0
        self.loader = DataLoader(
            _Reading(),
            batch_size=None,
            sampler=self.requests,
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,  # a fork would copy locks held by other threads
            worker_init_fn=_end_with_parent if workers else None,
            generator=torch.Generator(),  # the loader draws a seed from it, which the workers do not use
        )

    def run(self, requests: Generator[Any]) -> Generator[Any]:
        self.uses += 1
        use = self.uses
        self.requests.wanted = requests
        with _ignore_signals() if self.loader.num_workers else nullcontext():
            results = iter(self.loader)  # the first call starts the workers
        try:
            for result in results:
                yield result
                assert use == self.uses, "two iterators use the same workers; finish one before you start the next"
        finally:
            requests.close()
            if use == self.uses:
                deque(results, maxlen=0)  # if the caller stops early: workers exit without an error only when idle


@lru_cache(maxsize=STREAMS)
def _pool(workers: int, stream: int) -> _Pool:
    return _Pool(workers)
