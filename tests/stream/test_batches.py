import threading
import time
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coupled.datasets import ImageDataset
from coupled.stream import batches as batches_module
from coupled.stream.augment import augment, normalise
from coupled.stream.batches import Batch, batches, on_device
from coupled.stream.sampler import order
from coupled.stream.view_plan import inputs_digest, view_plan

SEED, EPOCH = 3, 5


@pytest.fixture
def dataset(images) -> ImageDataset:
    """24 images of 3 classes."""
    return ImageDataset(
        name="test",
        split="train",
        images_N3HW=images,
        labels_N=torch.arange(24) % 3,
        class_names=("a", "b", "c"),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.25),
    )


@pytest.fixture
def epoch(dataset, everything):
    """Return a function that maps options to the batches of one epoch: K = 4, N = 6, V = 3."""
    order_KG = order(SEED, EPOCH, dataset.labels_N.numpy(), 6)
    plan = view_plan(SEED, EPOCH, len(dataset), everything)
    return lambda **options: batches(dataset, order_KG, plan, epoch=EPOCH, size=16, **options)


def assert_same(one: Batch, other: Batch) -> None:
    """Every field equal, bit for bit."""
    for field in fields(Batch):
        a, b = (each() if callable(each) else each for each in (getattr(one, field.name), getattr(other, field.name)))
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, field.name


def test_a_dataset_is_copied_to_the_device_once(dataset):
    """One copy per epoch would move gigabytes; data that is already on the device is not copied."""
    placed = on_device(dataset, "meta")
    assert placed.images_N3HW.is_meta
    assert placed.labels_N is dataset.labels_N
    assert on_device(placed, "meta") is placed
    assert on_device(dataset, "cpu") is dataset


def test_a_batch_matches_the_sampler_order_and_the_view_plan(epoch, dataset, everything):
    """Otherwise labels, indices and views would belong to different images."""
    order_KG = order(SEED, EPOCH, dataset.labels_N.numpy(), 6)
    plan = view_plan(SEED, EPOCH, len(dataset), everything)
    found = list(epoch())
    assert [batch.number for batch in found] == [0, 1, 2, 3]
    for batch, indices_G in zip(found, order_KG, strict=True):
        views = augment(dataset.images_N3HW[indices_G], plan[indices_G], 16)
        assert torch.equal(batch.views_VB3SS, normalise(views, dataset.mean, dataset.std))
        assert batch.indices_G.tolist() == batch.indices_B.tolist() == indices_G.tolist()
        assert torch.equal(batch.labels_G, dataset.labels_N[indices_G])
        assert torch.equal(batch.labels_B, batch.labels_G)
        assert (batch.epoch, batch.first) == (EPOCH, 0)
        assert batch.inputs_digest == inputs_digest(indices_G, plan[indices_G])
    assert len({batch.inputs_digest for batch in found}) == 4


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_make_the_same_batches_in_the_same_order(epoch, workers):
    """Otherwise a run would depend on the number of threads that prepare its batches."""
    for made, expected in zip(epoch(workers=workers), epoch(), strict=True):
        assert_same(made, expected)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_ranks_batches_side_by_side_are_the_batch_of_one_process(epoch, world_size, workers):
    """Otherwise several processes would train on other views than one process does."""
    ranks = [epoch(rank=rank, world_size=world_size, workers=workers) for rank in range(world_size)]
    for whole, *parts in zip(epoch(), *ranks, strict=True):
        assert torch.equal(torch.cat([part.views_VB3SS for part in parts], dim=1), whole.views_VB3SS)
        assert torch.equal(torch.cat([part.labels_B for part in parts]), whole.labels_G)
        assert torch.equal(torch.cat([part.indices_B for part in parts]), whole.indices_G)
        for rank, part in enumerate(parts):
            assert part.first == rank * 6 // world_size
            assert torch.equal(part.labels_G, whole.labels_G)
            assert torch.equal(part.indices_G, whole.indices_G)
            assert part.inputs_digest == whole.inputs_digest


@pytest.mark.parametrize("start", [1, 3, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_starting_at_step_k_equals_skipping_k_batches(epoch, start, workers):
    """Otherwise a run resumed within an epoch would see other batches than one that never stopped."""
    for made, expected in zip(epoch(start=start, workers=workers), list(epoch())[start:], strict=True):
        assert_same(made, expected)


def test_a_failure_in_a_worker_reaches_the_caller_after_the_batches_before_it(epoch, dataset, monkeypatch):
    """Otherwise a run would hang, end early as if finished, or skip a batch."""
    expected = list(epoch())
    third = dataset.images_N3HW[expected[2].indices_G]

    def fails_at_third(images: Tensor, *rest: Any) -> Tensor:
        if torch.equal(images, third):
            raise ArithmeticError("no third batch")
        return augment(images, *rest)

    monkeypatch.setattr(batches_module, "augment", fails_at_third)
    made = epoch(workers=2)
    assert_same(next(made), expected[0])
    assert_same(next(made), expected[1])
    with pytest.raises(ArithmeticError, match="no third batch"):
        next(made)
    assert_no_threads()


def test_leaving_early_stops_the_workers(epoch):
    """Otherwise an interrupted run would not end, or keep making batches that are never used."""
    made = epoch(workers=2)
    next(made)
    made.close()
    assert_no_threads()


def assert_no_threads() -> None:
    """Assert that all prefetching threads have ended."""
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_workers_stay_a_bounded_number_of_batches_ahead(dataset, augmentation, monkeypatch):
    """Otherwise a fast machine would fill its memory with a whole epoch of views."""
    started = []
    monkeypatch.setattr(batches_module, "augment", lambda images, *rest: started.append(1) or augment(images, *rest))
    order_KG = order(SEED, EPOCH, dataset.labels_N.numpy(), 1)
    made = batches(dataset, order_KG, view_plan(SEED, EPOCH, 24, augmentation), epoch=EPOCH, size=4, workers=2)
    next(made)
    time.sleep(0.2)
    assert len(started) <= 5
    made.close()


def test_a_batch_not_divisible_by_the_world_size_is_refused_in_one_line(epoch):
    """Otherwise some ranks would hold fewer images, and gathering would hang or misplace them."""
    with pytest.raises(ValueError, match=r"^batch.size: got 6 with 4 processes; allowed are multiples of 4"):
        epoch(world_size=4)


def test_the_batches_do_not_touch_the_global_generator(epoch):
    """Otherwise prefetching would change what else a run draws."""
    before = torch.get_rng_state()
    list(epoch(workers=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_batches_of_the_demo_take_little_time(augmentation):
    """Otherwise the stream would hold up training: 256 images of 16 px take 7 to 10 ms of one core; allowed are 60."""
    images = torch.zeros(512, 3, 16, 16, dtype=torch.uint8)
    digits = ImageDataset("d", "train", images, torch.zeros(512, dtype=torch.int64), ("a",), (0.5,) * 3, (0.2,) * 3)
    order_KG, plan = (
        np.arange(8 * 256).reshape(8, 256) % 512,
        view_plan(0, 0, 512, replace(augmentation, blur_prob=0.0)),
    )
    start = time.process_time()
    for _ in batches(digits, order_KG, plan, epoch=0, size=16):
        pass
    assert (time.process_time() - start) / 8 < 0.06
