from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from coupled.stream import augment as augment_module
from coupled.stream.augment import augment, clean_views, normalise
from coupled.stream.crops import crop_box
from coupled.stream.view_plan import JITTERS, ViewPlan, view_plan

EVERYONE = np.arange(24)
GREY_LEVEL = 1 / 255


@pytest.fixture
def epoch_plan(everything):
    """The plan of an epoch of 24 images, with three views each, two recipes and every operation."""
    return view_plan(0, 0, 24, everything)


def by_torchvision(image: Tensor, plan: ViewPlan, view: int, size: int) -> Tensor:
    """One view of one image ([3, H, W] uint8; its plan has B = 1), one torchvision call after the other."""
    box = crop_box(plan, *image.shape[1:])[0, view].tolist()
    pixels = F.resized_crop(image.float() / 255, *box, [size, size], antialias=True)
    if plan.flip_BV[0, view]:
        pixels = F.horizontal_flip(pixels)
    pixels = F.rotate(pixels, float(plan.rotation_BV[0, view]), InterpolationMode.BILINEAR)
    for jitter in plan.order_BV4[0, view].tolist():
        name = JITTERS[jitter]
        pixels = getattr(F, f"adjust_{name}")(pixels, float(getattr(plan, f"{name}_BV")[0, view]))
    if plan.grayscale_BV[0, view]:
        pixels = F.rgb_to_grayscale(pixels, num_output_channels=3)
    pixels = warped(pixels, plan.warp_BV8[0, view])
    if plan.blur_sigma_BV[0, view] > 0:
        given = 0 if plan.blur_taps_BV is None else int(plan.blur_taps_BV[0, view])
        taps = given or max(3, size // 10 | 1)
        pixels = F.gaussian_blur(pixels, [taps, taps], [float(plan.blur_sigma_BV[0, view])])
    if plan.solarize_BV[0, view] <= 1:
        pixels = F.solarize(pixels, float(plan.solarize_BV[0, view]))
    return pixels


def warped(pixels: Tensor, moves_8: Tensor) -> Tensor:
    """A view with its control points moved, by scipy's thin-plate spline and its bilinear sampling."""
    if not moves_8.any():
        return pixels
    moves, points = moves_8.view(4, 2).numpy(), [(y / 3, x / 3) for y in (1, 2) for x in (1, 2)]
    place_M2 = np.stack(np.meshgrid(*[np.arange(pixels.shape[-1])] * 2, indexing="ij"), -1).reshape(-1, 2)
    flow = RBFInterpolator(points + moves, moves, kernel="thin_plate_spline", degree=1)
    from_M2 = place_M2 - flow(place_M2 / pixels.shape[-1]) * pixels.shape[-1]
    channels = [map_coordinates(each.double().numpy(), from_M2.T, order=1, mode="nearest") for each in pixels]
    return torch.from_numpy(np.stack(channels)).float().view_as(pixels)


@pytest.mark.parametrize("size", [16, 20, 50])
def test_the_whole_chain_is_torchvisions_applied_to_one_image_at_a_time(images, epoch_plan, size):
    """Otherwise an operation would be left out, doubled, in another order, or on another view."""
    views_VB3SS = augment(images, epoch_plan[EVERYONE], size)
    for b in range(24):
        alone = epoch_plan[EVERYONE[b : b + 1]]
        for v in range(3):
            assert abs(views_VB3SS[v, b] - by_torchvision(images[b], alone, v, size)).max() < GREY_LEVEL, (v, b)


def test_the_blur_of_a_recipe_has_its_number_of_taps(images, everything):
    """The papers' 224-px views have a blur of 3 taps; a tenth of the view would blur about 50 times as many pixels."""
    second = replace(everything.second, blur_prob=1.0, blur_taps=3, blur_sigma=(1.5, 1.5))
    plan = view_plan(0, 0, 24, replace(everything, blur_prob=1.0, second=second))[EVERYONE]
    assert plan.blur_taps_BV.tolist() == [[0, 3, 3]] * 24
    views_VB3SS = augment(images, plan, 60)
    for b, v in ((0, 0), (5, 0), (5, 1), (9, 2), (23, 2)):
        assert abs(views_VB3SS[v, b] - by_torchvision(images[b], plan[b : b + 1], v, 60)).max() < GREY_LEVEL, (v, b)
    first = augment(images, replace(plan, blur_taps_BV=None), 60)
    assert torch.equal(first[0], views_VB3SS[0])
    assert not torch.equal(first[1], views_VB3SS[1])


@pytest.mark.parametrize("size", [16, 37])
def test_a_view_has_the_same_bits_whatever_else_is_in_the_batch(images, epoch_plan, size):
    """Otherwise views would depend on the world size and on the neighbours in the batch."""
    together = augment(images, epoch_plan[EVERYONE], size)
    alone = torch.cat([augment(images[b : b + 1], epoch_plan[EVERYONE[b : b + 1]], size) for b in EVERYONE], dim=1)
    assert torch.equal(together, alone)
    backwards = augment(images.flip(0), epoch_plan[EVERYONE[::-1]], size)
    assert torch.equal(together, backwards.flip(1))
    sliced = [augment(images[part], epoch_plan[EVERYONE][part], size) for part in (slice(0, 7), slice(7, 24))]
    assert torch.equal(together, torch.cat(sliced, dim=1))


def test_a_view_has_the_same_bits_for_any_chunk_and_number_of_threads(images, epoch_plan, monkeypatch):
    """Otherwise views would depend on the machine that makes them."""
    threads = torch.get_num_threads()
    repeated, plan = images.repeat(4, 1, 1, 1), epoch_plan[np.tile(EVERYONE, 4)]
    expected = augment(repeated, plan, 64)
    try:
        for count, chunk in ((1, 3 * 64 * 64 * 7), (2, 2**30), (3, 3 * 64 * 64 * 50)):
            torch.set_num_threads(count)
            monkeypatch.setattr(augment_module, "_CPU_CHUNK", chunk)
            assert torch.equal(augment(repeated, plan, 64), expected)
    finally:
        torch.set_num_threads(threads)


class Counted(TorchDispatchMode):
    """Counts the operations on tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.operations += 1
        return function(*arguments, **(options or {}))


def test_the_number_of_operations_does_not_grow_with_the_batch(everything, monkeypatch):
    """A GPU computes a batch in one chunk and waits for the CPU to start each operation."""
    monkeypatch.setattr(augment_module, "_CPU_CHUNK", augment_module._GPU_CHUNK)
    counted = []
    for batch in (200, 800):
        images_B388 = torch.zeros(batch, 3, 8, 8, dtype=torch.uint8)
        with Counted() as count:
            augment(images_B388, view_plan(0, 0, batch, everything)[np.arange(batch)], 8)
        counted.append(count.operations)
    assert counted[1] <= counted[0] < 1000


def test_autocast_changes_no_bit(images, epoch_plan):
    """Otherwise a run in bfloat16 would see other images than one in float32."""
    expected = augment(images, epoch_plan[EVERYONE], 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(images, epoch_plan[EVERYONE], 16), expected)


def test_views_stay_within_zero_and_one_and_black_and_white_stay_exact(images, epoch_plan, augmentation):
    """Otherwise pixels would leave the range that mean and std were measured on."""
    views = augment(images, epoch_plan[EVERYONE], 16)
    assert views.min() >= 0
    assert views.max() <= 1
    plain = view_plan(0, 0, 24, replace(augmentation, jitter_prob=0.0))
    black, white = augment(images, plain[EVERYONE], 16)[:, :2].unbind(1)
    assert (black == 0).all()
    torch.testing.assert_close(white, torch.ones_like(white), rtol=0, atol=1.1e-4)  # torchvision's luma of white


def test_augmentation_of_zero_strength_returns_the_image(images, augmentation):
    """Otherwise augmentation that is switched off would still change the images."""
    off = replace(
        augmentation,
        crop_scale=(1.0, 1.0),
        crop_ratio=(1.0, 1.0),
        hflip_prob=0.0,
        jitter_prob=0.0,
        grayscale_prob=0.0,
        blur_prob=0.0,
    )
    square = images[:, :, :, :20]
    views = augment(square, view_plan(0, 0, 24, off)[EVERYONE], 20)
    torch.testing.assert_close(views, (square.float() / 255).expand(2, -1, -1, -1, -1), rtol=0, atol=1e-7)


def test_augment_does_not_change_images_plan_or_the_global_generator(images, epoch_plan):
    """Otherwise a second epoch would start from augmented images, or a run depend on its augmentation."""
    plan, copy, state = epoch_plan[EVERYONE], images.clone(), torch.get_rng_state()
    augment(images, plan, 16)
    assert torch.equal(images, copy)
    assert torch.equal(plan.brightness_BV, epoch_plan[EVERYONE].brightness_BV)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_can_be_trained_on_the_views(images, epoch_plan):
    """Otherwise the backward pass would refuse tensors that were made in inference mode."""
    layer = torch.nn.Conv2d(3, 2, 3)
    layer(augment(images, epoch_plan[EVERYONE], 16)[0]).square().mean().backward()
    assert layer.weight.grad is not None


def test_normalise_is_torchvisions(images):
    """Otherwise networks would see other values than the mean and std of the dataset promise."""
    views, mean, std = images.float() / 255, (0.1, 0.5, 0.7), (0.2, 0.3, 0.25)
    copy = views.clone()
    torch.testing.assert_close(normalise(views, mean, std), F.normalize(views, mean, std))
    assert torch.equal(views, copy)


@pytest.mark.parametrize(("height", "width"), [(20, 28), (28, 20), (21, 21)])
@pytest.mark.parametrize("size", [8, 20, 33])
def test_clean_views_are_the_resized_central_square(images, height, width, size):
    """Otherwise evaluation would see cut or distorted images."""
    turned = (images if width > height else images.transpose(2, 3))[..., :height, :width]
    turned = torch.nn.functional.pad(turned, (0, width - turned.shape[3], 0, height - turned.shape[2]))
    ours = clean_views(turned, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    side = min(height, width)
    square = turned[..., (height - side) // 2 :, (width - side) // 2 :][..., :side, :side].float() / 255
    assert abs(ours - F.resize(square, [size, size], antialias=True)).max() < 0.3 * GREY_LEVEL
    assert torch.equal(ours[5:6], clean_views(turned[5:6], size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_views_have_the_same_bits_on_a_gpu(images, epoch_plan):
    """Otherwise runs on a GPU and a CPU would see different images."""
    expected = augment(images, epoch_plan[EVERYONE], 16)
    assert torch.equal(augment(images.cuda(), epoch_plan[EVERYONE], 16).cpu(), expected)
