"""Clean views: which images of a split are looked at, and their pixels without augmentation, batch by batch.

Shape letters: N images that are looked at, B of a batch, S side of a view.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from coupled.datasets import AnyImageDataset, ImageFiles
from coupled.stream.augment import clean_views
from coupled.stream.decoding import crops, workers_for
from coupled.stream.seeds import permutation, philox

BATCH = 256  # images a forward; changes speed and memory, not the results beyond rounding


def choose_images(images: int, num_images: int | None, seed: int, split: str) -> Tensor:
    """Numbers of the images to use, ascending [N], N = min(num_images, images); all of them for None.

    A subset depends on nothing but its arguments, and a smaller one lies within a larger one.
    """
    order_N = permutation(images, philox(seed, f"analysis/{split}"))
    return torch.from_numpy(order_N[:num_images]).sort().values


def clean_batches(
    images: AnyImageDataset, chosen_N: Tensor, size: int, device: torch.device, num_workers: int | None
) -> Iterator[Tensor]:
    """The views of the chosen images on `device`, float32 [B, 3, S, S] with S = `size`, in evaluation's way."""
    for pixels_B3HW in _pixels(images, chosen_N, size, workers_for(num_workers, device)):
        yield clean_views(pixels_B3HW.to(device), size, images.mean, images.std)


def _pixels(images: AnyImageDataset, chosen_N: Tensor, size: int, workers: int) -> Iterator[Tensor]:
    """The chosen images batch by batch, uint8 [B, 3, H, W]; those on the disk as squares of `size`."""
    if isinstance(images, ImageFiles):
        batches = [chosen_B.numpy() for chosen_B in chosen_N.split(BATCH)]
        yield from (crops_1B3SS[0] for (crops_1B3SS,) in crops(images, batches, None, size, workers))
    else:
        yield from (images.images_N3HW[chosen_B] for chosen_B in chosen_N.split(BATCH))
