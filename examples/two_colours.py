"""A user-defined dataset: any torch Dataset of (image, label), here noisy squares of two colours.

coupled train demo 'dataset={name: "examples/two_colours.py:two_colours", image_size: 8}'
"""

import torch
from torch import Tensor
from torch.utils.data import Dataset


class TwoColours(Dataset):
    """Reddish and bluish images of 8 x 8 pixels; an index always gives the same image."""

    classes = ("red", "blue")

    def __init__(self, images: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)  # local: the global generator belongs to the run
        self.images_N3HW = torch.randint(0, 128, (images, 3, 8, 8), generator=generator, dtype=torch.uint8)
        self.labels_N = torch.arange(images) % 2
        self.images_N3HW[self.labels_N == 0, 0] += 127
        self.images_N3HW[self.labels_N == 1, 2] += 127

    def __len__(self) -> int:
        return len(self.labels_N)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.images_N3HW[number], int(self.labels_N[number])


def two_colours(split: str, *, images: int = 512) -> Dataset:
    """Return one split. For a Hugging Face dataset, return `datasets.load_dataset("beans", split=split)`.

    Args:
        split: "train" or "test".
        images: number of train images; the test split has a quarter of this number.

    Returns:
        A torch Dataset of (image uint8 [3, 8, 8], label).

    Example:
        >>> image, label = two_colours("test")[1]
        >>> image.shape, label
        (torch.Size([3, 8, 8]), 1)
    """
    return TwoColours(images, seed=0) if split == "train" else TwoColours(images // 4, seed=1)
