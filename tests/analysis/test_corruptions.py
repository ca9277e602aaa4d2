"""The corruptions of images: each equals a slow version with the same random numbers, and depends on nothing else."""

import colorsys
import io
import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from PIL import Image

from coupled.analysis.corruptions import constants, weather
from coupled.analysis.corruptions.constants import CORRUPTIONS, LARGE, SEVERITIES, SMALL
from coupled.analysis.corruptions.draws import Draws
from coupled.analysis.corruptions.generate import FUNCTIONS, corrupted, corrupted_batch

SIDE = 12
FROST = tuple(np.random.default_rng(n).integers(0, 256, (70 + n, 80 - n, 3)).astype(np.uint8) for n in range(5))


@pytest.fixture(autouse=True)
def _photographs_of_frost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weather, "photographs", lambda: FROST)


def picture(seed: int = 0, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


def bilinear(channel: np.ndarray, row: float, column: float, border: Callable[[int, int], int]) -> float:
    """One value between four pixels; `border` maps an index outside to one inside."""
    top, left = math.floor(row), math.floor(column)
    total = 0.0
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (1 - abs(row - top - i)) * (1 - abs(column - left - j))
        total += weight * channel[border(top + i, len(channel)), border(left + j, len(channel))]
    return total


def mirrored(index: int, size: int) -> int:
    """Without repeating the border pixel: c b a b c."""
    index = abs(index) % (2 * size - 2)
    return min(index, 2 * size - 2 - index)


def reflected(index: int, size: int) -> int:
    """With the border pixel repeated: b a a b."""
    index %= 2 * size
    return min(index, 2 * size - 1 - index)


def blurred(x: np.ndarray, radius: float, sigma: float, angle: float) -> np.ndarray:
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(2 * radius + 1)]
    out = np.zeros_like(x)
    for row, column, k in np.ndindex(*x.shape[:2], len(weights)):
        far = k * math.sin(math.radians(angle)), k * math.cos(math.radians(angle))
        i, j = (min(max(at + math.ceil(by - 0.5), 0), len(x) - 1) for at, by in zip((row, column), far, strict=True))
        out[row, column] += weights[k] / sum(weights) * x[i, j]
    return out


def zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    side = len(x)
    part = math.ceil(side / factor)
    top = (side - part) // 2
    large = scipy.ndimage.zoom(
        x[top : top + part, top : top + part], (factor, factor, 1), order=1, mode="grid-constant", grid_mode=False
    )
    cut = (len(large) - side) // 2
    return large[cut : cut + side, cut : cut + side]


def slow_shot(x: np.ndarray, draws: Draws, photons: float) -> np.ndarray:
    return scipy.stats.poisson.ppf(draws.uniform(*x.shape), x * photons) / photons


def slow_impulse(x: np.ndarray, draws: Draws, share: float) -> np.ndarray:
    changed, coin = draws.uniform(*x.shape), draws.uniform(*x.shape)
    out = x.copy()
    for place in np.ndindex(x.shape):
        if changed[place] < share:
            out[place] = 1.0 if coin[place] < 0.5 else 0.0
    return out


def slow_defocus(x: np.ndarray, draws: Draws, radius: float, sigma: float) -> np.ndarray:
    half, taps = (8, 1) if radius <= 8 else (int(radius), 2)
    edge = {k: math.exp(-(k**2) / (2 * sigma**2)) for k in range(-taps, taps + 1)}
    inside = [(i, j) for i, j in product(range(-half, half + 1), repeat=2) if i**2 + j**2 <= radius**2]
    out = np.zeros_like(x)
    for a, b in product(range(-half, half + 1), repeat=2):
        near = [
            (k, m, mirrored(a + k + half, 2 * half + 1), mirrored(b + m + half, 2 * half + 1))
            for k in edge
            for m in edge
        ]
        weight = sum(edge[k] * edge[m] for k, m, i, j in near if (i - half, j - half) in inside)
        if weight:
            for row, column in np.ndindex(x.shape[:2]):
                out[row, column] += weight * x[mirrored(row + a, len(x)), mirrored(column + b, len(x))]
    return out / sum(edge.values()) ** 2 / len(inside)


def slow_glass(x: np.ndarray, draws: Draws, sigma: float, distance: int, passes: int) -> np.ndarray:
    def soft(image: np.ndarray) -> np.ndarray:
        return np.stack([scipy.ndimage.gaussian_filter(c, sigma, mode="nearest") for c in image.transpose(2, 0, 1)], 2)

    out = np.floor(255 * soft(x) + 1e-6) / 255
    count = len(range(len(x) - distance, distance, -1)) ** 2
    for _ in range(passes):
        moves = iter(draws.integers(-distance, distance, 2, count).T)
        for row in range(len(x) - distance, distance, -1):
            for column in range(len(x) - distance, distance, -1):
                right, down = next(moves)
                out[row, column] = out[row + down, column + right]
    return soft(out)


def slow_motion(x: np.ndarray, draws: Draws, radius: int, sigma: float) -> np.ndarray:
    return np.floor(255 * blurred(x, radius, sigma, -45 + 90 * float(draws.uniform())) + 0.5) / 255


def slow_zoom(x: np.ndarray, draws: Draws, end: float, step: float) -> np.ndarray:
    factors = np.arange(1, end, step)
    return (x + sum(zoomed(x, factor) for factor in factors)) / (len(factors) + 1)


def slow_snow(x: np.ndarray, draws: Draws, *c: Any) -> np.ndarray:
    flakes = zoomed(draws.normal(len(x), len(x), 1) * c[1] + c[0], c[2])
    flakes[flakes < c[3]] = 0
    flakes = (np.clip(flakes, 0, 1) * 255).astype(np.uint8) / 255
    flakes = np.rint(255 * blurred(flakes, c[4], c[5], -135 + 90 * float(draws.uniform()))) / 255
    out = np.zeros_like(x)
    for row, column, colour in np.ndindex(x.shape):
        grey = 0.299 * x[row, column, 0] + 0.587 * x[row, column, 1] + 0.114 * x[row, column, 2]
        value = x[row, column, colour]
        out[row, column, colour] = c[6] * value + (1 - c[6]) * max(value, 1.5 * grey + 0.5)
        out[row, column, colour] += flakes[row, column, 0] + flakes[len(x) - 1 - row, len(x) - 1 - column, 0]
    return out


def slow_frost(x: np.ndarray, draws: Draws, share: float, of_frost: float, step: int) -> np.ndarray:
    photograph = FROST[int(5 * draws.uniform())]
    size = [round(length / step) for length in photograph.shape[:2]]
    top, left = (int(draws.uniform() * (length - len(x))) for length in size)
    out = np.zeros_like(x)
    for i, j, k in np.ndindex(x.shape):
        row, column = (step * (at + 0.5) - 0.5 for at in (top + i, left + j))  # centres of the scaled pixels
        out[i, j, k] = share * x[i, j, k] + of_frost * bilinear(photograph[..., k], row, column, min) / 255
    return out


def slow_fog(x: np.ndarray, draws: Draws, amount: float, decay: float) -> np.ndarray:
    size = 2 ** math.ceil(math.log2(len(x)))
    heights: dict[tuple[int, int], float] = {(0, 0): 0.0}
    step, scale = size, 100.0
    while step >= 2:
        half, number = step // 2, size // step
        for corner, offsets in (
            ((half, half), [(-half, -half), (-half, half), (half, -half), (half, half)]),
            ((0, half), [(-half, 0), (half, 0), (0, -half), (0, half)]),
            ((half, 0), [(-half, 0), (half, 0), (0, -half), (0, half)]),
        ):
            random = draws.uniform(number, number, low=-scale, high=scale)
            for i, j in np.ndindex(number, number):
                row, column = i * step + corner[0], j * step + corner[1]
                near = [heights[(row + a) % size, (column + b) % size] for a, b in offsets]
                heights[row, column] = sum(near) / 4 + scale * random[i, j]
        step, scale = half, scale / decay
    low, high = min(heights.values()), max(heights.values())
    fog = np.array([[(heights[i, j] - low) / (high - low) for j in range(len(x))] for i in range(len(x))])
    return (x + amount * fog[:, :, None]) * x.max() / (x.max() + amount)


def slow_brightness(x: np.ndarray, draws: Draws, added: float) -> np.ndarray:
    out = np.zeros_like(x)
    for row, column in np.ndindex(x.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*x[row, column])
        out[row, column] = colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))
    return out


def slow_elastic(x: np.ndarray, draws: Draws, displacement: float, sigma: float, corners: float) -> np.ndarray:
    side, third = len(x), len(x) // 3
    before = [(side // 2 + a * third, side // 2 + b * third) for a, b in ((1, 1), (1, -1), (-1, -1))]
    moves = draws.uniform(3, 2, low=-1, high=1) * corners * side
    after = [(p[0] + m[0], p[1] + m[1]) for p, m in zip(before, moves, strict=True)]
    (a, b), (c, d), (e, f) = after
    area = (c - a) * (f - b) - (e - a) * (d - b)
    moved = np.zeros_like(x)
    for y, column in np.ndindex(side, side):  # barycentric coordinates of the pixel in the moved triangle
        one = ((column - a) * (f - b) - (e - a) * (y - b)) / area
        two = ((c - a) * (y - b) - (column - a) * (d - b)) / area
        p, q = (
            before[0][k] + one * (before[1][k] - before[0][k]) + two * (before[2][k] - before[0][k]) for k in (0, 1)
        )
        moved[y, column] = [bilinear(x[..., k], q, p, mirrored) for k in range(3)]
    fields = [
        scipy.ndimage.gaussian_filter(draws.uniform(side, side, low=-1, high=1), sigma * side, truncate=3)
        for _ in range(2)
    ]
    right, down = (displacement * side * field for field in fields)
    out = np.zeros_like(x)
    for y, column, k in np.ndindex(x.shape):
        out[y, column, k] = bilinear(moved[..., k], y + down[y, column], column + right[y, column], reflected)
    return out


def slow_pixelate(x: np.ndarray, draws: Draws, factor: float) -> np.ndarray:
    picture = Image.fromarray((255 * x + 0.5).astype(np.uint8))
    small = picture.resize((int(len(x) * factor),) * 2, Image.Resampling.BOX)
    return np.asarray(small.resize((len(x),) * 2, Image.Resampling.BOX)) / 255


def slow_jpeg(x: np.ndarray, draws: Draws, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray((255 * x + 0.5).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255


SLOW: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_noise": lambda x, draws, c: np.array([x.ravel()[k] + c * z for k, z in enumerate(draws.normal(x.size))]),
    "shot_noise": slow_shot,
    "impulse_noise": slow_impulse,
    "defocus_blur": slow_defocus,
    "glass_blur": slow_glass,
    "motion_blur": slow_motion,
    "zoom_blur": slow_zoom,
    "snow": slow_snow,
    "frost": slow_frost,
    "fog": slow_fog,
    "brightness": slow_brightness,
    "contrast": lambda x, draws, c: np.stack([(a - a.mean()) * c + a.mean() for a in x.transpose(2, 0, 1)], 2),
    "elastic_transform": slow_elastic,
    "pixelate": slow_pixelate,
    "jpeg_compression": slow_jpeg,
}


@pytest.mark.parametrize("table", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_equals_a_slow_version_with_the_same_random_numbers(name: str, table: dict[str, Any]) -> None:
    """Pixel by pixel, from the paper's programs; a wrong border or order would be another corruption."""
    x = picture() / 255
    x[3, 4], x[5, 6] = 0, 1  # black and white pixels
    for severity in (1, 5):
        values = table[name][severity - 1]
        found = FUNCTIONS[name](x, Draws(3, name, severity, 5), *values)
        expected = SLOW[name](x, Draws(3, name, severity, 5), *values).reshape(x.shape)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_every_severity_has_constants_of_both_sizes() -> None:
    """Images of up to 64 px have those of CIFAR-C, larger images those of ImageNet-C."""
    assert tuple(SLOW) == CORRUPTIONS == tuple(FUNCTIONS)
    assert {*SMALL} == {*LARGE} == {*CORRUPTIONS}
    assert all(len(table[name]) == len(SEVERITIES) for table in (SMALL, LARGE) for name in table)
    assert constants.constants_of("shot_noise", 5, 64) == (50,)
    assert constants.constants_of("shot_noise", 5, 65) == (3,)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_every_batch_and_differs_over_severities(name: str) -> None:
    """Arms, runs and subsets of the images must see the same corrupted images; the input must not change."""
    pixels = torch.from_numpy(np.stack([picture(seed) for seed in range(3)])).permute(0, 3, 1, 2).contiguous()
    before = pixels.clone()
    whole = corrupted_batch(pixels, [7, 8, 9], name, 5, seed=1)
    assert whole.dtype == torch.uint8
    assert whole.shape == pixels.shape
    assert torch.equal(corrupted_batch(pixels[1:2], [8], name, 5, seed=1), whole[1:2])
    assert torch.equal(pixels, before)
    assert not torch.equal(whole, pixels)
    assert not np.array_equal(corrupted(picture(), name, 4, seed=1, image=7), whole[0].permute(1, 2, 0))
    random = name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
    for seed, image in ((2, 7), (1, 8)):
        other = corrupted(picture(), name, 5, seed=seed, image=image)
        assert np.array_equal(other, whole[0].permute(1, 2, 0)) == (not random)


def test_a_corrupted_image_has_known_bytes() -> None:
    """A changed random stream would change every table of robustness without notice."""
    found = corrupted(picture(), "gaussian_noise", 3, seed=0, image=0)
    assert found[0, 0].tolist() == [217, 163, 119]
