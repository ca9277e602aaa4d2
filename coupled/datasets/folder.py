"""Your own images from folders, one a class: root/train/<class>/*.png and root/test/<class>/*.png (or root/val/...).

They may lie in folders within a class. They are held in memory at one size; the licence is that of your images.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coupled.datasets import ImageDataset, check_range, check_split
from coupled.datasets._files import Files, check_same_classes, class_files, load_files
from coupled.datasets._layouts import check_layout
from coupled.datasets._pillow import refuse, shorter_side

SIZE = 64
SMALLEST, LARGEST = 8, 4096


def load(split: str, *, root: Path | None = None, image_size: int | None = None) -> ImageDataset:
    """The images of root/train or root/test (else root/val), as RGB, the shorter side at `image_size`, centre square.

    Without `image_size` it is `own_size`. Mean and std are those of the train images: of all up to 4096, of 4096 evenly
    spaced ones if there are more. Raises ValueError for a missing folder, an empty class, classes that differ between
    the splits, and images that cannot be decoded.
    """
    check_split(split)
    if image_size is not None:
        check_range("image_size", image_size, SMALLEST, LARGEST)
    passed = {"train": Counter[str](), "test": Counter[str]()}
    root, files = _files(root, passed)
    return load_files("folder", split, files, root, image_size or _shared_side(files), passed[split])


def own_size(root: Path | None) -> int:
    """The shorter side of the pictures if they all share it and it is allowed, otherwise 64 pixels.

    Raises ValueError for folders that cannot be the set, and for pictures whose header cannot be read.
    """
    return _shared_side(_files(root, {"train": Counter(), "test": Counter()})[1])


def _files(root: Path | None, passed: dict[str, Counter[str]]) -> tuple[Path, dict[str, Files]]:
    if root is None:
        raise ValueError("dataset.root: missing; give the folder that holds train/<class>/ and test/<class>/")
    check_layout(root, "folder")
    test = root / "val" if (root / "val").is_dir() and not (root / "test").is_dir() else root / "test"
    files = {"train": class_files(root / "train", passed["train"]), "test": class_files(test, passed["test"])}
    check_same_classes(root, files["train"], files["test"], ("train", test.name))
    return root, {**files}


def _shared_side(files: dict[str, Files]) -> int:
    paths = [path for classes in files.values() for of_class in classes.values() for path in of_class]
    sides: set[int] = set()
    faults: list[str] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), 1024):
            found = list(pool.map(_side_or_fault, paths[start : start + 1024]))
            sides |= {each for each in found if isinstance(each, int)}
            faults += [each for each in found if isinstance(each, str)]
            if len(sides) > 1 and not faults:
                return SIZE  # to load the pictures tells of all that are bad
    refuse(faults)
    side = sides.pop()
    return side if SMALLEST <= side <= LARGEST else SIZE


def _side_or_fault(path: Path) -> int | str:
    try:
        return shorter_side(path)
    except ValueError as error:
        return str(error)
