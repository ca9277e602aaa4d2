"""Clean views: choose images of a split, and yield them without augmentation, batch by batch.

Shape letters: N chosen images, B images of a batch, S side of a view.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from coupled.datasets import AnyImageDataset, ImageFiles
from coupled.stream.augment import clean_views
from coupled.stream.decoding import crops, workers_for
from coupled.stream.seeds import permutation, philox

BATCH = 256  # images per forward pass; changes results only by rounding


def choose_images(images: int, num_images: int | None, seed: int, split: str) -> Tensor:
    """Return the numbers of the chosen images, ascending [N], N = min(num_images, images); None chooses all.

    The subset depends only on the arguments, and a smaller subset is part of a larger one.
    """
    order_N = permutation(images, philox(seed, f"analysis/{split}"))
    return torch.from_numpy(order_N[:num_images]).sort().values


def clean_batches(
    images: AnyImageDataset, chosen_N: Tensor, size: int, device: torch.device, num_workers: int | None
) -> Iterator[Tensor]:
    """Yield the clean views of the chosen images on `device`, float32 [B, 3, S, S] with S = `size`."""
    for pixels_B3HW in _pixels(images, chosen_N, size, workers_for(num_workers, device)):
        yield clean_views(pixels_B3HW.to(device), size, images.mean, images.std)


def clean_pixels(
    images: AnyImageDataset, chosen_N: Tensor, size: int, device: torch.device, num_workers: int | None
) -> Iterator[Tensor]:
    """Yield the clean views of the chosen images before they are normalised, uint8 [B, 3, S, S] on the CPU.

    They are rounded to grey levels, which changes nothing unless an image was resized.
    """
    for pixels_B3HW in _pixels(images, chosen_N, size, workers_for(num_workers, device)):
        yield clean_views(pixels_B3HW, size, (0, 0, 0), (1, 1, 1)).mul_(255).round_().to(torch.uint8)


def _pixels(images: AnyImageDataset, chosen_N: Tensor, size: int, workers: int) -> Iterator[Tensor]:
    """Yield the chosen images batch by batch, uint8 [B, 3, H, W]; images on the disk as squares of `size`."""
    if isinstance(images, ImageFiles):
        batches = [chosen_B.numpy() for chosen_B in chosen_N.split(BATCH)]
        yield from (crops_1B3SS[0] for (crops_1B3SS,) in crops(images, batches, None, size, workers))
    else:
        yield from (images.images_N3HW[chosen_B] for chosen_B in chosen_N.split(BATCH))
