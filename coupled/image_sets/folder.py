"""Your own images from folders, one a class: root/train/<class>/*.png and root/test/<class>/*.png (or root/val/...).

They are held in memory at one size; the licence is that of your images.
"""

from pathlib import Path

from coupled.image_sets import ImageSet, check_range, check_split
from coupled.image_sets._files import class_files, load_files

SIZE = 64


def load(split: str, *, root: Path | None = None, size: int = SIZE) -> ImageSet:
    """The images of root/train or root/test (else root/val), as RGB, shorter side scaled to `size`, centre square.

    Mean and std are those of the train images: of all up to 4096, of 4096 evenly spaced ones if there are more.
    Raises ValueError for a missing folder, an empty class, classes that differ between the splits, and an image that
    cannot be decoded.
    """
    check_split(split)
    check_range("size", size, 8, 4096)
    if root is None:
        raise ValueError("image_set.root: missing; give the folder that holds train/<class>/ and test/<class>/")
    files = {"train": class_files(root / "train"), "test": class_files(_test_folder(root))}
    return load_files("folder", split, files, root, size)


def _test_folder(root: Path) -> Path:
    return root / "val" if (root / "val").is_dir() and not (root / "test").is_dir() else root / "test"
