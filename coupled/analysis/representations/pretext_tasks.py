"""Pretext tasks: images with one of K transformations each, and which one it is.

The transformation of an image depends on the seed, the task, the split and the chosen images only, so it is the same
for every arm and epoch. Each of the K transformations has the same number of images, give or take one.

Shape letters: B images of a batch, N chosen images, S side of a view, K classes of a task.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad
from torchvision.transforms.v2.functional import gaussian_blur, rgb_to_grayscale

from coupled.analysis.representations.embeddings import BATCH, Embedder, Sample
from coupled.analysis.representations.layers import layer_outputs
from coupled.config.schema import Settings
from coupled.metrics.arm import Labelled
from coupled.stream.augment import normalise
from coupled.stream.clean import clean_batches
from coupled.stream.portable import portable_normal
from coupled.stream.seeds import permutation, philox, random_uint32

STREAM = "analysis/pretext"
NOISE = 0.1  # standard deviation of the noise, for values in [0, 1]
BLUR = 1 / 32  # standard deviation of the blur, in shares of the side
COLOURED = 1 / 512  # largest difference of the channels of a grey image


@dataclass(frozen=True)
class Pretext:
    """A task: the names of its classes, and the function that transforms pixels in [0, 1] with the noise given."""

    classes: tuple[str, ...]
    transform: Callable[[Tensor, int, Tensor | None], Tensor]  # pixels [B, 3, S, S], class, noise of the same shape
    noise: bool = False
    needs_colour: bool = False


def _rotation(pixels_B3SS: Tensor, which: int, _noise: Tensor | None) -> Tensor:
    return torch.rot90(pixels_B3SS, which, (-2, -1))


def _colour(pixels_B3SS: Tensor, which: int, _noise: Tensor | None) -> Tensor:
    return rgb_to_grayscale(pixels_B3SS, num_output_channels=3) if which else pixels_B3SS


ORDERS = ("rgb", "rbg", "grb", "gbr", "brg", "bgr")


def _channels(pixels_B3SS: Tensor, which: int, _noise: Tensor | None) -> Tensor:
    return pixels_B3SS[:, ["rgb".index(channel) for channel in ORDERS[which]]]


def _corruption(pixels_B3SS: Tensor, which: int, noise_B3SS: Tensor | None) -> Tensor:
    if which == 1:
        assert noise_B3SS is not None
        return (pixels_B3SS + NOISE * noise_B3SS).clamp(0, 1)
    if which == 2:
        sigma = BLUR * pixels_B3SS.shape[-1]
        taps = 2 * max(1, round(2 * sigma)) + 1
        return gaussian_blur(pixels_B3SS, [taps, taps], [sigma, sigma])
    return sobel(pixels_B3SS) if which == 3 else pixels_B3SS


def sobel(pixels_B3SS: Tensor) -> Tensor:
    """Return the length of the Sobel gradient of every channel, divided by its largest possible value."""
    kernel_33 = pixels_B3SS.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    planes = pad(pixels_B3SS, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    gradients = conv2d(planes, torch.stack([kernel_33, kernel_33.T])[:, None])
    return gradients.square().sum(1).sqrt().div(20**0.5).view_as(pixels_B3SS)


TASKS = {
    "rotation": Pretext(("0", "90", "180", "270"), _rotation),
    "colour": Pretext(("colour", "grey"), _colour, needs_colour=True),
    "channels": Pretext(ORDERS, _channels, needs_colour=True),
    "corruption": Pretext(("none", "noise", "blur", "sobel"), _corruption, noise=True),
}


def drawn_classes(task: str, split: str, images: int, seed: int) -> Tensor:
    """Return the class of each chosen image, [N]: that of place p of a seeded permutation is p modulo K."""
    order_N = permutation(images, philox(seed, f"{STREAM} {task}, {split}"))
    classes_N = np.empty(images, dtype=np.int64)
    classes_N[order_N] = np.arange(images) % len(TASKS[task].classes)
    return torch.from_numpy(classes_N)


def noise_of(seed: int, split: str, image: int, size: int) -> Tensor:
    """Return the normal noise of an image, float32 [3, S, S], with the same bits on every machine."""
    values = 3 * size * size
    draws_2n = random_uint32(seed, f"{STREAM} noise, {split}", image, shape=(2, (values + 1) // 2)) * 2.0**-32
    return torch.from_numpy(np.concatenate(portable_normal(*draws_2n))[:values].astype(np.float32)).view(3, size, size)


def transformed(
    sample: Sample, split: str, task: str, settings: Settings, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Yield the normalised transformed images [B, 3, S, S], their classes [B], and whether one has a colour."""
    pretext, images, size = TASKS[task], sample.images, settings.image_size
    classes_N = drawn_classes(task, split, len(sample.chosen_N), settings.seed)
    mean_311, std_311 = (torch.tensor([*each], device=device)[:, None, None] for each in (images.mean, images.std))
    clean = clean_batches(images, sample.chosen_N, size, device, settings.dataset.num_workers)
    for views_B3SS, classes_B, chosen_B in zip(
        clean, classes_N.split(BATCH), sample.chosen_N.split(BATCH), strict=True
    ):
        pixels_B3SS = views_B3SS * std_311 + mean_311
        coloured = bool((pixels_B3SS.amax(1) - pixels_B3SS.amin(1)).max() > COLOURED)
        result_B3SS = torch.empty_like(pixels_B3SS)
        for which in range(len(pretext.classes)):
            place_b = torch.nonzero(classes_B == which).flatten()
            if not len(place_b):
                continue
            drawn = [noise_of(settings.seed, split, int(image), size) for image in chosen_B[place_b]]
            noise_b3SS = torch.stack(drawn).to(device) if pretext.noise else None
            result_B3SS[place_b.to(device)] = pretext.transform(pixels_B3SS[place_b.to(device)], which, noise_b3SS)
        yield normalise(result_B3SS, images.mean, images.std), classes_B, coloured


@torch.no_grad()
def pretext_features(
    embedder: Embedder, sample: Sample, split: str, task: str, arm: str, epoch: int, layers: list[str]
) -> tuple[dict[str, Labelled], bool]:
    """Return representations [N, D] of the transformed images by layer, labelled by their transformation.

    The second value is whether the images have colours.
    """
    network = embedder.network(arm, epoch)
    rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    labels, coloured = [], False
    for views_B3SS, classes_B, has_colour in transformed(sample, split, task, embedder.settings, embedder.device):
        outputs = layer_outputs(network, views_B3SS[None], layers)
        for layer in layers:
            rows[layer].append(outputs[layer].cpu())
        labels.append(classes_B)
        coloured |= has_colour
    return {layer: Labelled(torch.cat(rows[layer]), torch.cat(labels)) for layer in layers}, coloured
