"""Local views: small crops with independent draws, which do not change the other views."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coupled.datasets import ImageDataset, ImageFiles
from coupled.stream.augment import augment
from coupled.stream.batches import Batch, batches
from coupled.stream.crops import crop_box
from coupled.stream.recipe import Augmentation
from coupled.stream.sampler import order
from coupled.stream.seeds import philox
from coupled.stream.view_plan import inputs_digest, view_plan

EVERYONE = np.arange(24)
LABELS_N = torch.arange(24) % 3


@pytest.fixture
def local(everything: Augmentation) -> Augmentation:
    """Three views of two recipes, and four local views of 8 px."""
    return replace(everything, local_views=4, local_size=8, local_crop_scale=(0.05, 0.3))


def made(dataset: ImageDataset | ImageFiles, augmentation: Augmentation, **options: int) -> list[Batch]:
    """The batches of an epoch: K = 4, N = 6."""
    order_KG = order(3, 5, LABELS_N.numpy(), 6)
    return list(batches(dataset, order_KG, view_plan(3, 5, 24, augmentation), epoch=5, size=16, **options))


@pytest.fixture
def dataset(images: Tensor) -> ImageDataset:
    return ImageDataset("test", "train", images, LABELS_N, ("a", "b", "c"), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def test_local_views_have_independent_draws_and_small_crops(local: Augmentation) -> None:
    """Otherwise a run with them would see other views than one without, or its local views would repeat other draws."""
    plan, without = view_plan(3, 5, 24, local), view_plan(3, 5, 24, replace(local, local_views=0))
    assert without.local is None
    assert plan.local is not None
    assert inputs_digest(EVERYONE, plan[EVERYONE]) == inputs_digest(EVERYONE, without[EVERYONE])
    assert inputs_digest(EVERYONE, plan[EVERYONE], plan.local[EVERYONE]) != inputs_digest(EVERYONE, plan[EVERYONE])
    row = philox(3, "local views", 5, 2).random_raw(4).astype("<u8").view("<u4")
    assert plan.local.table_VNR[2, 0, :8].tolist() == row.tolist()
    boxes_BV4 = crop_box(plan.local[EVERYONE], 100, 100)
    assert boxes_BV4.shape == (24, 4, 4)
    areas_BV = boxes_BV4[..., 2] * boxes_BV4[..., 3] / 100**2
    assert 0.04 < areas_BV.min() < areas_BV.max() < 0.31
    own = local.local()
    assert own is not None
    assert own.recipe() == replace(local.recipe(), crop_scale=(0.05, 0.3))


def test_local_views_do_not_change_other_views_for_any_ranks_workers_and_start(
    dataset: ImageDataset, images: Tensor, local: Augmentation
) -> None:
    """The guarantees of the stream hold for local views too."""
    expected, without = made(dataset, local), made(dataset, replace(local, local_views=0))
    plan = view_plan(3, 5, 24, local)
    for batch, plain in zip(expected, without, strict=True):
        assert torch.equal(batch.views_VB3SS, plain.views_VB3SS)
        assert plain.local_VB3SS is None
        assert batch.inputs_digest != plain.inputs_digest
        assert batch.local_VB3SS is not None
        assert batch.local_VB3SS.shape == (4, 6, 3, 8, 8)
        indices = batch.indices_B.numpy()
        of_own = augment(images[indices], plan.local[indices], 8) if plan.local else None
        pixels = (
            batch.local_VB3SS * torch.tensor(dataset.std)[:, None, None] + torch.tensor(dataset.mean)[:, None, None]
        )
        torch.testing.assert_close(pixels, of_own, rtol=0, atol=1e-6)
    ranks = [made(dataset, local, rank=rank, world_size=2, workers=2) for rank in range(2)]
    for whole, *parts in zip(expected, *ranks, strict=True):
        assert torch.equal(torch.cat([part.local_VB3SS for part in parts], dim=1), whole.local_VB3SS)
        assert {part.inputs_digest for part in parts} == {whole.inputs_digest}
    for later, whole in zip(made(dataset, local, start=2), expected[2:], strict=True):
        assert torch.equal(later.local_VB3SS, whole.local_VB3SS)


def test_local_views_from_disk_equal_those_from_memory(
    dataset: ImageDataset, images: Tensor, local: Augmentation, tmp_path: Path
) -> None:
    """Views must not depend on whether the dataset fits in memory."""
    names = tuple(f"{number:02d}.png" for number in range(len(images)))
    for name, image_3HW in zip(names, images, strict=True):
        Image.fromarray(image_3HW.permute(1, 2, 0).numpy()).save(tmp_path / name)
    files = ImageFiles("test", "train", tmp_path, names, LABELS_N, ("a", "b", "c"), dataset.mean, dataset.std)
    plain = replace(local, jitter_prob=0.0, grayscale_prob=0.0, blur_prob=0.0)
    for expected, found in zip(made(dataset, plain), made(files, plain), strict=True):
        assert found.inputs_digest == expected.inputs_digest
        apart = (found.local_VB3SS - expected.local_VB3SS) * 0.3
        assert apart.abs().max() <= 1.1 / 255 * 0.3 / 0.2
