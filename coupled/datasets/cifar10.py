"""CIFAR-10: 50 000 train and 10 000 test images of 32 px, 10 classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), https://www.cs.toronto.edu/~kriz/cifar.html;
no licence is stated there. Read from torchvision's folder, as the archive for Python unpacks.
"""

from pathlib import Path

from torchvision.datasets import CIFAR10

from coupled.datasets import ImageDataset
from coupled.datasets._cifar import load_cifar

SIZE = 32


def load(split: str, *, root: Path | None = None, download: bool = False) -> ImageDataset:
    """CIFAR-10 below `root` (default data); `download` downloads it if it is missing.

    Raises ValueError if it is missing, damaged, or cannot be downloaded.
    """
    return load_cifar("cifar10", CIFAR10, split, root, download)
