"""STL-10: 5 000 train and 8 000 test images of 96 px, 10 classes (the 100 000 unlabelled images are not used).

A. Coates, H. Lee, A. Y. Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning" (2011),
https://cs.stanford.edu/~acoates/stl10/; no licence is stated there, and the images come from ImageNet. Read from
torchvision's folder, as the binary archive unpacks; unlabeled_X.bin (2.6 GB) may be missing.
"""

from pathlib import Path

from torchvision.datasets import STL10

from coupled.datasets import ImageDataset
from coupled.datasets._torchvision import dataset, read

SIZE = 96
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


class LabelledSTL10(STL10):
    """torchvision's STL-10 without the unlabelled images; their file is not required, and not checked at each start."""

    train_list = STL10.train_list[:2]


def load(split: str, *, root: Path | None = None, download: bool = False) -> ImageDataset:
    """STL-10 below `root` (default data); `download` downloads it (2.6 GB) if it is missing.

    Raises ValueError if it is missing, damaged, or cannot be downloaded.
    """
    root = root or Path("data")
    missing = f"no complete, undamaged STL10 in {(root / STL10.base_folder).resolve()}; "
    found = read(
        split,
        lambda part: LabelledSTL10(str(root), split=part, download=download),
        root,
        STL10.url,
        download,
        f"{missing}unpack {STL10.filename} in {root.resolve()}",
    )
    return dataset("stl10", split, {part: each.data for part, each in found.items()}, found[split].labels, CLASSES)
