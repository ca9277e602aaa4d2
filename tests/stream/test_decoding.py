"""Views of images on disk equal those of the same images in memory, for any number of workers."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coupled.datasets import ImageDataset, ImageFiles
from coupled.stream import decoding
from coupled.stream.augment import augment, clean_views
from coupled.stream.batches import Batch, batches, step_batches
from coupled.stream.decoding import augment_crops, crops
from coupled.stream.recipe import Augmentation
from coupled.stream.sampler import order
from coupled.stream.view_plan import view_plan

SEED, EPOCH, SIZE = 3, 5, 16
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # 4 workers on a smaller machine


@pytest.fixture
def files(images: Tensor, tmp_path: Path) -> ImageFiles:
    """The 24 images in memory, written as files of 3 classes."""
    names = tuple(f"{number:02d}.png" for number in range(len(images)))
    for name, image_3HW in zip(names, images, strict=True):
        Image.fromarray(image_3HW.permute(1, 2, 0).numpy()).save(tmp_path / name)
    labels_N = torch.arange(len(images)) % 3
    return ImageFiles("test", "train", tmp_path, names, labels_N, ("a", "b", "c"), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


@pytest.fixture
def epoch(
    files: ImageFiles, everything: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Iterator[Batch]]:
    """Return a function that maps options to the batches of one epoch: K = 4, N = 6, V = 3, in chunks of 2."""
    monkeypatch.setattr(decoding, "CHUNK", 2)
    order_KG = order(SEED, EPOCH, files.labels_N.numpy(), 6)
    plan = view_plan(SEED, EPOCH, len(files), everything)
    return lambda **options: batches(files, order_KG, plan, epoch=EPOCH, size=SIZE, **options)


def assert_same(found: Batch, expected: Batch) -> None:
    """Every field equal, bit for bit."""
    for field in fields(Batch):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, field.name


@pytest.mark.parametrize(
    ("given", "device", "cores", "processes", "streams", "wanted"),
    [
        *((None, "cpu", 64, 1, 1, 0), (3, "cpu", 1, 1, 2, 3), (0, "cuda", 64, 1, 1, 0)),
        *((None, "cuda", 64, 8, 1, 8), (None, "cuda", 64, 1, 2, 8), (None, "cuda", 2, 4, 1, 1)),
    ],
)
def test_the_default_number_of_workers_uses_the_free_cores(
    monkeypatch: pytest.MonkeyPatch,
    given: int | None,
    device: str,
    cores: int,
    processes: int,
    streams: int,
    wanted: int,
) -> None:
    """On a CPU no workers, since the networks need the cores; beside a GPU at least one, up to a useful maximum."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert decoding.workers_for(given, device, streams) == wanted


def test_streams_share_the_cores(
    files: ImageFiles, augmentation: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stream has separate workers."""
    asked: list[tuple[int | None, int]] = []
    monkeypatch.setattr(
        "coupled.stream.batches.workers_for", lambda given, device, streams: (asked.append((given, streams)), 0)[1]
    )
    seeds = {"": (SEED, SEED), "cl": (SEED, SEED + 1)}
    place = {"rank": 0, "world_size": 1, "device": "cpu", "workers": None, "size": SIZE}
    place["augmentations"] = dict.fromkeys(seeds, augmentation)
    made = next(step_batches(1, dataset=files, seeds=seeds, batch_size=6, sampler="uniform", **place))
    assert set(made) == {"", "cl"}
    assert asked == [(None, 2), (None, 2)]


def test_streams_with_two_recipes_decode_their_own_crops(files: ImageFiles, augmentation: Augmentation) -> None:
    """An arm with another range of crops gets the views of a run in which all arms have this range."""
    recipes = {"": augmentation, "small": replace(augmentation, crop_scale=(0.1, 0.2))}
    place = {"rank": 0, "world_size": 1, "device": "cpu", "workers": 0, "size": SIZE, "sampler": "uniform"}

    def first(*streams: str) -> dict[str, Batch]:
        seeds = dict.fromkeys(streams, (SEED, SEED))
        return next(step_batches(1, dataset=files, seeds=seeds, batch_size=6, augmentations=recipes, **place))

    both = first("", "small")
    for stream in recipes:
        assert_same(both[stream], first(stream)[stream])
    assert both[""].inputs_digest != both["small"].inputs_digest


def test_views_are_those_of_images_in_memory(files: ImageFiles, images: Tensor, everything: Augmentation) -> None:
    """Reading from disk must not change a view by more than one grey level, which comes from rounding the crops."""
    chosen_B = np.array([17, 3, 21, 8, 0])
    none: dict[str, Any] = {"jitter_prob": 0.0, "grayscale_prob": 0.0, "blur_prob": 0.0}
    assert everything.second
    plain = replace(everything, **none, second=replace(everything.second, **none))  # solarize inverts from 0.5 on,
    for colours in (plain, replace(plain, grayscale_prob=0.5, blur_prob=0.5)):  # where both sides meet
        plan = view_plan(SEED, EPOCH, len(files), colours)
        ((crops_VB3SS,),) = crops(files, [chosen_B], plan, SIZE, workers=0)
        apart = augment_crops(crops_VB3SS, plan[chosen_B]) - augment(images[chosen_B], plan[chosen_B], SIZE)
        assert apart.abs().max() <= 1.1 / 255  # half a level from the rows, half from the columns
        assert apart.abs().mean() <= 0.35 / 255


def test_decoded_crops_are_augmented_as_images_in_memory(files: ImageFiles, everything: Augmentation) -> None:
    """Each view keeps its other operations; the crop is not cropped, resized or flipped a second time."""
    plan = view_plan(SEED, EPOCH, len(files), everything)
    chosen_B = np.array([17, 3, 21, 8, 0])
    ((crops_VB3SS,),) = crops(files, [chosen_B], plan, SIZE, workers=0)
    views_VB3SS = augment_crops(crops_VB3SS, plan[chosen_B])
    crop: dict[str, Any] = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "hflip_prob": 0.0}
    assert everything.second
    whole = replace(everything, **crop, second=replace(everything.second, **crop))
    own = view_plan(SEED, EPOCH, len(files), whole)[chosen_B]
    for v in range(3):
        assert torch.equal(augment(crops_VB3SS[v], own, SIZE)[v], views_VB3SS[v])


@pytest.mark.slow
def test_batches_are_the_same_for_any_number_of_workers_and_from_any_start(epoch: Callable) -> None:
    """A run must not depend on the machine's cores, nor on where it was interrupted."""
    expected = list(epoch())
    for workers in (1, 2):
        for found, each in zip(epoch(workers=workers), expected, strict=True):
            assert_same(found, each)
    abandoned = epoch(workers=2)
    next(abandoned)
    for found, each in zip(epoch(workers=2, start=1), expected[1:], strict=True):
        assert_same(found, each)


def test_ranks_share_a_batch(epoch: Callable) -> None:
    """Each rank decodes its slice of the same global batch."""
    for whole, *parts in zip(epoch(), *([*epoch(rank=rank, world_size=3)] for rank in range(3)), strict=True):
        assert torch.equal(torch.cat([part.views_VB3SS for part in parts], dim=1), whole.views_VB3SS)
        assert {part.inputs_digest for part in parts} == {whole.inputs_digest}


def test_inputs_digests_are_those_of_images_in_memory(
    epoch: Callable, files: ImageFiles, images: Tensor, everything: Augmentation
) -> None:
    """Equal digests prove equal inputs, in memory or on disk."""
    memory = ImageDataset("test", "train", images, files.labels_N, files.class_names, files.mean, files.std)
    expected = batches(
        memory,
        order(SEED, EPOCH, files.labels_N.numpy(), 6),
        view_plan(SEED, EPOCH, 24, everything),
        epoch=EPOCH,
        size=SIZE,
    )
    assert [batch.inputs_digest for batch in epoch()] == [batch.inputs_digest for batch in expected]


def test_without_a_plan_the_central_square_is_decoded(files: ImageFiles, images: Tensor) -> None:
    """Analyses evaluate on these views."""
    chosen_B = np.array([23, 4, 5])
    ((crops_1B3SS,),) = crops(files, [chosen_B], None, SIZE, workers=0)
    black, white = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    shown = clean_views(crops_1B3SS[0], SIZE, black, white)
    assert torch.equal((shown * 255).round().to(torch.uint8), crops_1B3SS[0])
    assert (shown - clean_views(images[chosen_B], SIZE, black, white)).abs().max() <= 1.1 / 255


@pytest.mark.parametrize("workers", [0, 2])
def test_an_undecodable_image_is_named_in_a_one_line_error(workers: int, epoch: Callable, files: ImageFiles) -> None:
    """The user must learn which of a million files to repair; the traceback of a worker hides it."""
    path = files.root / "11.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"11.png: not a readable image .*; repair or remove it") as raised:
        list(epoch(workers=workers))
    assert "\n" not in str(raised.value)


def test_a_killed_worker_ends_the_epoch_with_an_error(epoch: Callable) -> None:
    """The out-of-memory killer may end a worker; the run must not wait forever for its images."""
    found = epoch(workers=2)
    next(found)
    decoding._pool(2, 0).loader._iterator._workers[0].kill()
    decoding._pool(2, 0).loader._iterator._workers[0].join()
    with pytest.raises(RuntimeError, match="worker"):
        next(epoch(workers=2))
    decoding._pool.cache_clear()


def test_workers_ignore_external_signals_and_end_with_the_main_process(epoch: Callable) -> None:
    """Ctrl-C and schedulers signal every process; without workers the run could not finish its step and save."""
    expected, found = list(epoch()), epoch(workers=2)
    assert_same(next(found), expected[0])
    workers = decoding._pool(2, 0).loader._iterator._workers
    for name in ("INT", "USR1", "TERM"):
        subprocess.run(["kill", f"-{name}", *(str(worker.pid) for worker in workers)], check=True)
    for batch, each in zip(found, expected[1:], strict=True):
        assert_same(batch, each)
    for worker in workers:
        worker.terminate()  # SIGTERM too, but from here
        worker.join()
        assert worker.exitcode == 0
    decoding._pool.cache_clear()


def test_reading_images_does_not_touch_the_global_generators(epoch: Callable) -> None:
    """The loader draws a seed for its workers; it must not come from the global generators."""
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    list(epoch())
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_equal(np.random.get_state(), numpy_state)


def test_two_iterators_over_the_same_workers_are_refused(epoch: Callable) -> None:
    """The second takes the workers from the first, which would then return the images of the second."""
    first, second = epoch(), epoch()
    next(first)
    next(second)
    with pytest.raises(AssertionError, match="use the same workers"):
        list(first)


def test_persistent_workers_find_images_after_a_change_of_directory(
    files: ImageFiles, augmentation: Augmentation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second run in the same process may have another working directory and a relative root."""
    plan, chosen_B = view_plan(SEED, EPOCH, len(files), augmentation), np.array([3, 1])
    ((expected,),) = crops(files, [chosen_B], plan, SIZE, workers=1)
    monkeypatch.chdir(files.root)
    ((found,),) = crops(replace(files, root=Path()), [chosen_B], plan, SIZE, workers=1)
    assert torch.equal(found, expected)
