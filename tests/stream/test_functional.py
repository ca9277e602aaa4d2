import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from coupled.stream import functional
from coupled.stream.portable import portable_cos_sin
from coupled.stream.seeds import random_uint32

GREY_LEVEL = 1 / 255


def drawn(name: str, *shape: int) -> Tensor:
    """Float32 numbers in [0, 1)."""
    return torch.from_numpy(random_uint32(0, name, shape=shape) * 2.0**-32).float()


@pytest.fixture
def pixels(images) -> Tensor:
    """float32 [24, 3, 20, 28] in [0, 1]."""
    return images.float() / 255


def adjusted(adjust, pixels: Tensor, factors: Tensor) -> Tensor:
    """`pixels` [N, 3, H, W] after one of our jitters in place, with one factor a view."""
    planes_3NP = pixels.transpose(0, 1).flatten(2).contiguous()
    adjust(planes_3NP, factors[:, None])
    return planes_3NP.unflatten(2, pixels.shape[2:]).transpose(0, 1)


@pytest.mark.parametrize("size", [5, 16, 20, 31, 64])
def test_resample_is_torchvisions_antialiased_resized_crop(images, size):
    """Otherwise crops would be blurred, aliased or shifted: smaller, equal and larger than the view."""
    views = 60
    high = 1 + (drawn("high", views) * 20).long()
    wide = 1 + (drawn("wide", views) * 28).long()
    high[0], wide[0], high[1], wide[1] = 20, 28, 1, 1
    top, left = (drawn("top", views) * (21 - high)).long(), (drawn("left", views) * (29 - wide)).long()
    image, flip = torch.arange(views) % len(images), torch.arange(views) % 3 == 0
    rows = functional.row_taps(top, high, size, 20)
    columns = functional.column_taps(left, wide, flip.long(), size, 28)
    ours = functional.resample(images, image, rows, columns).transpose(0, 1)
    for n in range(views):
        box = (int(top[n]), int(left[n]), int(high[n]), int(wide[n]))
        theirs = F.resized_crop(images[image[n]].float() / 255, *box, [size, size], antialias=True)
        theirs = F.horizontal_flip(theirs) if flip[n] else theirs
        assert abs(ours[n] - theirs).max() < 0.3 * GREY_LEVEL, (n, box)


def test_a_crop_of_the_views_own_size_is_copied(images):
    """Otherwise even views that are not resized would be rounded or shifted."""
    everyone = torch.arange(24)
    rows = functional.row_taps(torch.full((24,), 3), torch.full((24,), 16), 16, 16)
    columns = functional.column_taps(everyone % 13, torch.full((24,), 16), torch.zeros(24), 16, 16)
    views = functional.resample(images, everyone, rows, columns)
    for n in range(24):
        expected = images[n, :, 3:19, n % 13 : n % 13 + 16].float() / 255
        torch.testing.assert_close(views[:, n], expected, rtol=0, atol=1e-7)


def test_flipping_is_exact(images):
    """Otherwise a flipped view would be shifted by a fraction of a pixel."""
    everyone, nothing = torch.arange(24), torch.zeros(24, dtype=torch.int64)
    rows = functional.row_taps(nothing + 2, nothing + 11, 16, 20)
    straight = functional.resample(
        images, everyone, rows, functional.column_taps(nothing, nothing + 23, nothing, 16, 28)
    )
    flipped = functional.resample(
        images, everyone, rows, functional.column_taps(nothing, nothing + 23, nothing + 1, 16, 28)
    )
    assert torch.equal(flipped, F.horizontal_flip(straight))


@pytest.mark.parametrize("size", [1, 3, 7, 40])
def test_resampling_weights_sum_to_one_exactly_in_fixed_point(size):
    """Otherwise white would not stay white, or a sum would be rounded, and so depend on its order."""
    length = torch.arange(1, 57)
    rows = functional.row_taps(length * 0, length, size, 56)
    columns = functional.column_taps(length * 0, length, length % 2, size, 56)
    for taps, total, steps in ((rows, 16, 2**10), (columns, 1, 2**12)):  # 255 * 16 * 2**12 < 2**24
        assert (taps.weights_MSK.sum(-1) == total).all()
        assert (taps.weights_MSK >= 0).all()
        assert ((taps.weights_MSK * steps) % 1 == 0).all()


@pytest.mark.parametrize("size", [4, 16])
def test_more_taps_than_needed_change_no_bit(images, size):
    """Otherwise a view would depend on the largest crop of its batch."""
    everyone, nothing = torch.arange(24), torch.zeros(24, dtype=torch.int64)
    views = []
    for longest in (9, 20):
        rows = functional.row_taps(nothing + 2, nothing + 9, size, longest)
        views.append(
            functional.resample(
                images, everyone, rows, functional.column_taps(nothing, nothing + 9, nothing, size, longest)
            )
        )
    assert torch.equal(*views)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("brightness", 0, 2), ("contrast", 0, 2), ("saturation", 0, 2), ("hue", -0.5, 0.5)]
)
def test_each_colour_jitter_is_torchvisions(pixels, name, low, high):
    """Otherwise the jitter of a paper would be another one here; PIL's hue, for one, differs by up to 15 levels."""
    factors = low + drawn(name, 24) * (high - low)
    factors[:2] = torch.tensor([low, high])
    factors[4:6] = torch.tensor([low, high])
    ours = adjusted(getattr(functional, f"adjust_{name}_"), pixels, factors)
    theirs = torch.stack(
        [getattr(F, f"adjust_{name}")(view, float(factor)) for view, factor in zip(pixels, factors, strict=True)]
    )
    assert abs(ours - theirs).max() < 0.01 * GREY_LEVEL


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_a_factor_of_one_changes_no_bit(pixels, name):
    """Otherwise views without jitter would have to be left out, and a weak jitter would not be weak."""
    assert torch.equal(adjusted(getattr(functional, f"adjust_{name}_"), pixels, torch.ones(24)), pixels)


def test_hue_keeps_grey_and_has_period_one(pixels):
    """Otherwise the division by the chroma of grey pixels, or the wrap around the wheel, would be wrong."""
    turned = pixels
    for _ in range(4):
        turned = adjusted(functional.adjust_hue_, turned, torch.full((24,), 0.25))
    torch.testing.assert_close(turned, pixels, rtol=0, atol=1e-5)
    assert torch.equal(adjusted(functional.adjust_hue_, pixels, torch.full((24,), 0.3))[:4], pixels[:4])


def test_luma_is_torchvisions_grayscale(pixels):
    """Otherwise grey views, contrast and saturation would weigh the colours differently."""
    ours = functional.luma(pixels.transpose(0, 1).flatten(2))
    torch.testing.assert_close(ours, F.rgb_to_grayscale(pixels)[:, 0].flatten(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 8, 17, 20])
def test_rotate_is_torchvisions_bilinear_one(pixels, size):
    """Otherwise views would turn the other way, about another centre, or with another border."""
    square = pixels[..., :size, :size].transpose(0, 1)
    degrees = torch.cat([torch.tensor([0.0, 90, 180, -90, 45, 360]), drawn("degrees", 18) * 720 - 360])
    turns = (torch.from_numpy(each).float() for each in portable_cos_sin(degrees.double().numpy()))
    ours = functional.rotate(square, *turns).transpose(0, 1)
    for view, theirs in enumerate(pixels[..., :size, :size]):
        theirs = F.rotate(theirs, float(degrees[view]), InterpolationMode.BILINEAR)
        assert abs(ours[view] - theirs).max() < 0.02 * GREY_LEVEL, (view, degrees[view])
    quarters = [0, 1, 2, 3, 0]
    for view, turned in zip((0, 1, 2, 3, 5), quarters, strict=True):  # pixels are moved, none is changed
        assert torch.equal(ours[view], pixels[view, :, :size, :size].rot90(turned, (1, 2)))


def test_what_is_rotated_out_of_the_view_is_black_and_white_stays_exact():
    """Otherwise the border would be mirrored or smeared, and a flat view would get a pattern."""
    cos_M, sin_M = (torch.from_numpy(each).float() for each in portable_cos_sin(np.array([45.0, 30.0])))
    turned = functional.rotate(torch.ones(3, 2, 16, 16), cos_M, sin_M)
    assert (turned[:, :, ::15, ::15] == 0).all()
    assert (turned[:, :, 4:12, 4:12] == 1).all()


def test_solarize_is_torchvisions(pixels):
    """Otherwise pixels on the threshold, or the wrong half, would be inverted; each view has its own threshold."""
    thresholds = drawn("thresholds", 24)
    thresholds[0], thresholds[1], thresholds[4], thresholds[5], thresholds[6] = 0, 1, float(pixels[4, 0, 0, 0]), 1, 0
    ours = adjusted(functional.solarize_, pixels, thresholds)
    for view, threshold, found in zip(pixels, thresholds, ours, strict=True):
        assert torch.equal(found, F.solarize(view, float(threshold)))


@pytest.mark.parametrize("taps", [3, 7])
def test_blur_is_torchvisions_with_the_border_mirrored(pixels, taps):
    """Otherwise blurred views would be dark, shifted or wrong at the border."""
    square, sigma = pixels[..., :20], 0.1 + 1.9 * drawn("sigma", 24)
    distance = torch.arange(taps) - taps // 2
    weights = torch.softmax(-(distance**2) / (2 * sigma[:, None] ** 2), dim=1)
    ours = functional.blur(square.transpose(0, 1), weights).transpose(0, 1)
    theirs = torch.stack(
        [F.gaussian_blur(view, [taps, taps], [float(s)]) for view, s in zip(square, sigma, strict=True)]
    )
    assert abs(ours - theirs).max() < 0.01 * GREY_LEVEL
