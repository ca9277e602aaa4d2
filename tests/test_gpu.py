"""The guarantees of bits on a GPU: `pytest -m gpu`, under 3 minutes on one GPU; skipped where there is none.

`COUPLED_TEST_DEVICE=cpu pytest -m gpu` runs the same tests on a CPU, to try out the tests themselves.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support import tiny

from coupled.datasets import AnyImageDataset, ImageDataset, ImageFiles
from coupled.stream.batches import Batch, batches
from coupled.stream.recipe import Augmentation, Recipe
from coupled.stream.sampler import order
from coupled.stream.seeds import determinism, random_uint32
from coupled.stream.view_plan import view_plan

DEVICE = os.environ.get("COUPLED_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="torch sees no GPU"),
    pytest.mark.filterwarnings("default"),  # of CUDA libraries, which differ between machines
]
IMAGES, SIZE = 96, 24
ARMS = {"cl": "dcl", "nscl": "nscl", "ce": "cross_entropy", "byol": "byol"}
NETWORKS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16", "channels_last": DEVICE == "cuda"},
    "lars": {"optimizer": {"name": "lars", "base_lr": 0.3, "warmup_epochs": 0}, "augmentation": {"views": 3}},
}


@pytest.fixture(scope="module", autouse=True)
def _deterministic() -> Iterator[None]:
    """As a run sets it, before the first CUDA operation of this process."""
    with determinism(True, None):
        yield


def everything() -> Augmentation:
    """Three views of two recipes with all operations, and two local views."""
    values: dict[str, Any] = {
        "crop_scale": (0.08, 1.0),
        "crop_ratio": (3 / 4, 4 / 3),
        "hflip_prob": 0.5,
        "jitter_prob": 0.8,
        "brightness": 0.8,
        "contrast": 0.8,
        "saturation": 0.8,
        "hue": 0.5,
        "grayscale_prob": 0.2,
        "blur_prob": 0.5,
        "blur_sigma": (0.1, 2.0),
        "solarize_prob": 0.3,
        "rotation_prob": 0.5,
        "warp_prob": 0.5,
    }
    second = Recipe(**{**values, "blur_prob": 0.2, "solarize_prob": 0.6})
    first = {**values, "rotation_degrees": (-180.0, 180.0)}
    return Augmentation(**first, views=3, second=second, local_views=2, local_size=12, local_crop_scale=(0.05, 0.4))


@pytest.fixture(params=["memory", "disk"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> AnyImageDataset:
    """Noise, and some flat, grey, black and white images, whose hue is undefined."""
    noise = torch.from_numpy(random_uint32(0, "test images", shape=(IMAGES, 3, 32, 40)) % 256).to(torch.uint8)
    noise[0], noise[1], noise[2] = 0, 255, 77
    noise[3] = noise[3, :1]
    shared: dict[str, Any] = {
        "name": "test",
        "split": "train",
        "labels_N": torch.arange(IMAGES) % 3,
        "class_names": ("a", "b", "c"),
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.3, 0.25),
    }
    if request.param == "memory":
        return ImageDataset(images_N3HW=noise, **shared)
    files = tuple(f"{number:02d}.png" for number in range(IMAGES))
    for name, image_3HW in zip(files, noise, strict=True):
        Image.fromarray(image_3HW.permute(1, 2, 0).numpy()).save(tmp_path / name)
    return ImageFiles(root=tmp_path, files_N=files, **shared)


def epoch_of(dataset: AnyImageDataset, device: str) -> list[Batch]:
    """The batches of an epoch."""
    order_KG, plan = order(3, 5, dataset.labels_N.numpy(), IMAGES // 2), view_plan(3, 5, IMAGES, everything())
    return list(batches(dataset, order_KG, plan, epoch=5, size=SIZE, device=device, workers=0))


def test_views_are_those_of_a_cpu_bit_for_bit(images: AnyImageDataset) -> None:
    """Otherwise a run on a GPU would see other inputs than the same run on a CPU, with equal digests."""
    for here, there in zip(epoch_of(images, DEVICE), epoch_of(images, "cpu"), strict=True):
        assert here.views_VB3SS.device.type == DEVICE
        assert here.inputs_digest == there.inputs_digest
        for mine, theirs in ((here.views_VB3SS, there.views_VB3SS), (here.local_VB3SS, there.local_VB3SS)):
            assert mine is not None
            assert theirs is not None
            assert mine.cpu().numpy().tobytes() == theirs.numpy().tobytes()


def trained(run: Path, network: str, resume: bool = False, max_steps: int | None = None, **changed: Any) -> Path:
    """A run of two epochs of five steps."""
    usual = {"device": DEVICE, "num_threads": None, "arms": ARMS, "log_every": 10, **NETWORKS[network]}
    tiny.train(run, resume, max_steps=max_steps, **{**usual, **changed})
    return run


def files_of(run: Path) -> dict[str, bytes]:
    """What two equal runs have in common, byte for byte."""
    return {**tiny.snapshot_bytes(run), "steps.csv": (run / "steps.csv").read_bytes()}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> str:
    """The name of a network, its precision and its optimizer."""
    return str(request.param)


@pytest.fixture(scope="module")
def whole(network: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads its losses every ten steps and is never stopped."""
    return trained(tmp_path_factory.mktemp(network) / "whole", network)


def test_a_run_that_is_repeated_gives_equal_bytes(network: str, whole: Path, tmp_path: Path) -> None:
    """Otherwise a difference between two arms could be chance."""
    expected = files_of(whole)
    assert len(expected) == 3 * len(ARMS) + 1
    for arm in ARMS:
        assert expected[f"{arm}/epoch_0001.safetensors"] != expected[f"{arm}/epoch_0002.safetensors"]
    assert files_of(trained(tmp_path / "again", network)) == expected


def test_reading_losses_every_step_gives_equal_bytes(network: str, whole: Path, tmp_path: Path) -> None:
    """With several steps between two readings the arms are updated before their losses are known."""
    assert files_of(trained(tmp_path / "every", network, log_every=1)) == files_of(whole)


def test_an_arm_alone_gives_the_bytes_that_it_has_beside_others(network: str, whole: Path, tmp_path: Path) -> None:
    """Otherwise a comparison would measure the effect of the other arms."""
    alone = trained(tmp_path / "alone", network, arms={"nscl": "nscl"})
    for epoch in (0, 1, 2):  # the files name their settings, which differ
        mine, theirs = (load_file(each / f"snapshots/nscl/epoch_{epoch:04d}.safetensors") for each in (alone, whole))
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if mine[name].numpy().tobytes() != theirs[name].numpy().tobytes()] == []


def test_a_run_stopped_within_an_epoch_and_resumed_gives_equal_bytes(network: str, whole: Path, tmp_path: Path) -> None:
    """A requeued job must not give another result."""
    run = trained(tmp_path / "stopped", network, max_steps=7)
    assert not (run / "snapshots/cl/epoch_0002.safetensors").exists()
    assert files_of(trained(run, network, resume=True)) == files_of(whole)
