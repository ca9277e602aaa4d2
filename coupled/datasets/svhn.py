"""SVHN, digits of house numbers: 73 257 train and 26 032 test images of 32 px, 10 classes ("extra" is not used).

Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning" (2011),
http://ufldl.stanford.edu/housenumbers/, which allows non-commercial use only. Read from torchvision's format: the two
files train_32x32.mat and test_32x32.mat of the source.
"""

from pathlib import Path

from torchvision.datasets import SVHN

from coupled.datasets import ImageDataset
from coupled.datasets._torchvision import dataset, read

SIZE = 32


def load(split: str, *, root: Path | None = None, download: bool = False) -> ImageDataset:
    """SVHN in the folder `root` (default data/svhn); `download` downloads it if it is missing. Label k is the digit k.

    Raises ValueError if it is missing, damaged, or cannot be downloaded.
    """
    root = root or Path("data/svhn")
    files = {part: name for part, (_, name, _) in SVHN.split_list.items()}
    found = read(
        split,
        lambda part: SVHN(str(root), split=part, download=download),
        root,
        "http://ufldl.stanford.edu/housenumbers/",
        download,
        f"no complete, undamaged SVHN in {root.resolve()}; put {files['train']} and {files['test']} there",
    )
    pixels = {part: each.data for part, each in found.items()}
    return dataset("svhn", split, pixels, found[split].labels.tolist(), map(str, range(10)))
