"""MixUp and CutMix: torchvision's for the same draws, and independent of ranks, workers and resume."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import beta, kstest
from torch import Tensor
from torchvision.transforms import v2

from coupled.datasets import ImageDataset, ImageFiles
from coupled.objectives import Inputs, cross_entropy
from coupled.stream.batches import Batch, batches
from coupled.stream.mixing import MixPlan, boxes, decode_mix, partners, symmetric_beta
from coupled.stream.recipe import Augmentation
from coupled.stream.sampler import order
from coupled.stream.view_plan import inputs_digest, view_plan

LABELS_N = torch.arange(24) % 3
SIZE = 16


@pytest.fixture
def both(everything: Augmentation) -> Augmentation:
    """Three views of two recipes; each view has MixUp or CutMix."""
    return replace(everything, mixup_alpha=0.4, cutmix_alpha=1.0)


@pytest.fixture
def dataset(images: Tensor) -> ImageDataset:
    return ImageDataset("test", "train", images, LABELS_N, ("a", "b", "c"), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def made(dataset: ImageDataset | ImageFiles, augmentation: Augmentation, **options: int) -> list[Batch]:
    """The batches of an epoch: K = 4, N = 6."""
    order_KG = order(3, 5, LABELS_N.numpy(), 6)
    return list(batches(dataset, order_KG, view_plan(3, 5, 24, augmentation), epoch=5, size=SIZE, **options))


def plan_of(batch: Batch, augmentation: Augmentation) -> MixPlan:
    plan = view_plan(3, 5, 24, augmentation).mix(batch.indices_G.numpy())
    assert plan is not None
    return plan


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 8.0])
def test_weights_have_the_beta_distribution(augmentation: Augmentation, alpha: float) -> None:
    """Otherwise `mixup_alpha` would not be the alpha of the paper."""
    mix = view_plan(0, 0, 3000, replace(augmentation, mixup_alpha=alpha)).mix(np.arange(3000))
    assert mix is not None
    weights = mix.weight_GV.flatten().numpy()
    assert weights.mean() == pytest.approx(0.5, abs=0.02)
    assert weights.var() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.06)
    assert kstest(weights, beta(alpha, alpha).cdf).pvalue > 1e-3
    assert not mix.cutmix_GV.any()
    extremes = symmetric_beta(np.array([0.0, 0.0, 1 - 2.0**-32]), np.array([0.0, 0.5, 0.25]), alpha)
    assert ((extremes >= 0) & (extremes <= 1)).all()


def test_each_view_has_one_of_the_two_and_its_own_draws(augmentation: Augmentation) -> None:
    """Otherwise one of two keys would be ignored, or views and images would have equal boxes."""
    mix = view_plan(0, 0, 3000, replace(augmentation, mixup_alpha=5.0, cutmix_alpha=0.2)).mix(np.arange(3000))
    assert mix is not None
    assert mix.cutmix_GV.double().mean() == pytest.approx(0.5, abs=0.02)
    for cut, alpha in ((mix.cutmix_GV, 0.2), (~mix.cutmix_GV, 5.0)):
        assert kstest(mix.weight_GV[cut].numpy(), beta(alpha, alpha).cdf).pvalue > 1e-3
    assert kstest(mix.centre_GV2.flatten().numpy(), "uniform").pvalue > 1e-3
    numbers = torch.cat([mix.weight_GV, mix.centre_GV2.flatten(1)], dim=1).T.numpy()
    assert np.abs(np.corrcoef(numbers) - np.eye(6)).max() < 0.06


def test_partners_are_one_random_cycle_of_the_global_batch() -> None:
    """An image mixed with itself would not be mixed; a partner of two images would be shown more often."""
    seen = set()
    for key_G in np.random.default_rng(0).random((200, 4)):
        partner_G = partners(key_G)
        cycle = [0]
        while len(cycle) < 4:
            cycle.append(int(partner_G[cycle[-1]]))
        assert sorted(cycle) == [0, 1, 2, 3]
        assert partner_G[cycle[-1]] == 0
        seen.add(tuple(cycle))
    assert len(seen) == 6  # all cycles of four


def by_torchvision(plan: MixPlan, image: int, view: int, monkeypatch: pytest.MonkeyPatch) -> tuple[v2.Transform, dict]:
    """torchvision's transform and its parameters for a batch of an image and its partner."""
    weight = float(plan.weight_GV[image, view])
    if not plan.cutmix_GV[image, view]:
        return v2.MixUp(num_classes=3), {"lam": weight}
    transform = v2.CutMix(num_classes=3)
    down, right = (int(share * SIZE) for share in plan.centre_GV2[image, view])
    pixels = iter([right, down])  # torchvision draws the column first
    with monkeypatch.context() as patched:
        patched.setattr(transform, "_dist", type("Fixed", (), {"sample": lambda self, shape: weight})())
        patched.setattr(torch, "randint", lambda most, size: torch.tensor([next(pixels)]))
        return transform, transform.make_params([torch.zeros(2, 3, SIZE, SIZE)])


def test_views_and_losses_are_torchvisions_for_the_same_draws(
    dataset: ImageDataset, both: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Box, weights and mixed labels must be those of MixUp and CutMix, for the right partner and view."""
    kinds = set()
    for batch, plain in zip(made(dataset, both), made(dataset, both.unmixed()), strict=True):
        plan, logits = plan_of(batch, both), torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(0))
        losses = []
        for view, image in np.ndindex(3, 6):
            transform, params = by_torchvision(plan, image, view, monkeypatch)
            pair = torch.tensor([image, int(plan.partner_G[image])])
            labels = plain.labels_B[pair]
            params |= {"labels": labels, "batch_size": 2}
            expected = transform.transform(plain.views_VB3SS[view, pair], params)[0]
            torch.testing.assert_close(batch.views_VB3SS[view, image], expected, rtol=0, atol=1e-6)
            soft = transform.transform(labels, params)[0]
            losses.append(F.cross_entropy(logits[view, image], soft))
            kinds.add(type(transform))
        mixed = {"partner_labels_B": batch.partner_labels_B, "own_weight_VB": batch.own_weight_VB}
        inputs = Inputs({"logits": logits}, {}, batch.labels_B, batch.labels_G, **mixed)
        found = cross_entropy.per_anchor(inputs).losses_A
        torch.testing.assert_close(found, torch.stack(losses), rtol=1e-5, atol=1e-6)
    assert kinds == {v2.MixUp, v2.CutMix}


def assert_parts_of(whole: Batch, parts: list[Batch]) -> None:
    """The batches of the ranks, side by side, are the batch of one process."""
    for name, dim in (("views_VB3SS", 1), ("own_weight_VB", 1), ("partner_labels_B", 0), ("labels_B", 0)):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts], dim=dim), getattr(whole, name)), name
    assert {part.inputs_digest for part in parts} == {whole.inputs_digest}


@pytest.mark.parametrize(("world_size", "workers"), [(1, 2), (2, 0), (3, 2), (6, 0)])
def test_mixed_batches_do_not_depend_on_ranks_workers_and_start(
    dataset: ImageDataset, both: Augmentation, world_size: int, workers: int
) -> None:
    """A partner on another rank has the view that it has there; otherwise W would be a hidden setting."""
    expected = made(dataset, both)
    for start in (0, 3):
        options = {"world_size": world_size, "workers": workers, "start": start}
        ranks = [made(dataset, both, rank=rank, **options) for rank in range(world_size)]
        for whole, *parts in zip(expected[start:], *ranks, strict=True):
            assert_parts_of(whole, parts)


def test_mixed_views_of_files_do_not_depend_on_ranks(
    dataset: ImageDataset, images: Tensor, both: Augmentation, tmp_path: Path
) -> None:
    """Images on the disk are decoded by position, so a wrong position would mix other images."""
    names = tuple(f"{number:02d}.png" for number in range(len(images)))
    for name, image_3HW in zip(names, images, strict=True):
        Image.fromarray(image_3HW.permute(1, 2, 0).numpy()).save(tmp_path / name)
    files = ImageFiles("test", "train", tmp_path, names, LABELS_N, ("a", "b", "c"), dataset.mean, dataset.std)
    ranks = [made(files, both, rank=rank, world_size=2) for rank in range(2)]
    for whole, *parts in zip(made(files, both), *ranks, strict=True):
        assert_parts_of(whole, parts)
    plain = replace(both, jitter_prob=0.0, grayscale_prob=0.0, blur_prob=0.0, solarize_prob=0.0, second=None)
    for on_disk, in_memory in zip(made(files, plain), made(dataset, plain), strict=True):
        assert on_disk.inputs_digest == in_memory.inputs_digest
        assert (on_disk.views_VB3SS - in_memory.views_VB3SS).abs().max() <= 1.1 / 255 / 0.2


def test_mixing_keeps_all_other_columns_and_enters_the_digest(dataset: ImageDataset, both: Augmentation) -> None:
    """Otherwise the views of existing runs would change, or two runs with other partners would have equal digests."""
    indices = np.arange(24)
    plan, without = view_plan(3, 5, 24, both), view_plan(3, 5, 24, both.unmixed())
    assert without.mix(indices) is None
    assert inputs_digest(indices, plan[indices]) == inputs_digest(indices, without[indices])
    whole, digests = plan.mix(indices), set()
    assert whole is not None
    changed = [
        {},
        {"partner_G": whole.partner_G.flip(0)},
        {"weight_GV": 1 - whole.weight_GV},
        {"cutmix_GV": ~whole.cutmix_GV},
        {"centre_GV2": whole.centre_GV2 / 2},
    ]
    digests = {inputs_digest(indices, plan[indices], mix=replace(whole, **each)) for each in changed}
    assert len(digests | {inputs_digest(indices, plan[indices])}) == 6
    for batch, plain in zip(made(dataset, both), made(dataset, both.unmixed()), strict=True):
        assert batch.inputs_digest != plain.inputs_digest
        assert torch.equal(batch.labels_G, plain.labels_G)
        assert plain.own_weight_VB is None


def test_the_box_of_cutmix_has_its_share_of_the_view_within_the_border() -> None:
    """A weight that ignores the cut-off part would give the partner's label too much."""
    draws_RGV = np.random.default_rng(1).random((8, 500, 2))
    mix = decode_mix(draws_RGV, None, 1.0)
    assert mix.cutmix_GV.all()
    top, left, bottom, right = boxes(mix, SIZE).unbind(-1)
    assert min(top.min(), left.min()) == 0
    assert max(bottom.max(), right.max()) == SIZE
    assert ((bottom - top) * (right - left) <= (1 - mix.weight_GV) * SIZE**2).all()


def test_warp_and_mixing_have_these_bits_on_every_machine(augmentation: Augmentation) -> None:
    """Otherwise their columns could move, or equal digests would prove nothing between machines."""
    indices = np.arange(500)
    plan = view_plan(0, 0, 500, replace(augmentation, warp_prob=0.5, mixup_alpha=0.4, cutmix_alpha=1.0))
    mix = plan.mix(indices)
    assert mix is not None
    assert inputs_digest(indices, plan[indices], mix=mix) == "6dcef98410b9581395e964f0e38d2b7d"
