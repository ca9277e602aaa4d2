"""Code shared by CIFAR-10 and CIFAR-100: the layout of the folder and of an image."""

from pathlib import Path

from torchvision.datasets import CIFAR10

from coupled.datasets import ImageDataset
from coupled.datasets._torchvision import dataset, read


def load_cifar(name: str, kind: type[CIFAR10], split: str, root: Path | None, download: bool) -> ImageDataset:
    """The dataset `name` from the folder `kind.base_folder` below `root` (default data).

    Raises ValueError if the folder is missing, damaged, or cannot be downloaded.
    """
    root = root or Path("data")
    missing = f"no complete, undamaged {kind.__name__} in {(root / kind.base_folder).resolve()}; "
    found = read(
        split,
        lambda part: kind(str(root), train=part == "train", download=download),
        root,
        kind.url,
        download,
        f"{missing}unpack {kind.filename} in {root.resolve()}",
    )
    pixels = {part: each.data.transpose(0, 3, 1, 2) for part, each in found.items()}
    return dataset(name, split, pixels, found[split].targets, found[split].classes)
