"""Tiny ImageNet: 100 000 train images of 64 px, 200 ImageNet classes; the 10 000 validation images are the test split.

Stanford CS231N (2015), http://cs231n.stanford.edu/tiny-imagenet-200.zip; no licence is stated there, and the images are
ImageNet's, whose terms (https://www.image-net.org/download) allow non-commercial research and education.

Read from the folder that the archive unpacks to:
    wnids.txt, train/<class>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt
The validation images may also lie in val/<class>/ or val/<class>/images/, as scripts/prepare_data.py puts those of a
parquet copy. The archive's test images have no labels and are not used.
"""

from collections import Counter
from pathlib import Path

from coupled.datasets import ImageDataset, check_split, prepare_command
from coupled.datasets._files import class_files, images, read_lines
from coupled.datasets._pictures import load_files

SIZE = 64
SOURCE = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def load(split: str, *, root: Path | None = None) -> ImageDataset:
    """Tiny ImageNet in the folder `root` (default data/tiny-imagenet-200); a class is named by its WordNet id.

    Mean and std are those of 4096 evenly spaced train images. Raises ValueError if it is missing or incomplete.
    """
    check_split(split)
    root = root or Path("data/tiny-imagenet-200")
    if not (root / "train").is_dir():
        raise ValueError(
            f"dataset.root: no Tiny ImageNet in {root.resolve()}; fetch {SOURCE} and run"
            f" '{prepare_command('tiny_imagenet', 'tiny-imagenet-200.zip', root)}'"
        )
    passed = {"train": Counter[str](), "test": Counter[str]()}
    train = class_files(root / "train", passed["train"])
    if (root / "wnids.txt").is_file():
        expected = {name for (name,) in read_lines(root / "wnids.txt", "\n")}
        if expected != set(train):
            odd = min(expected ^ set(train))
            raise ValueError(f"dataset.root: {root}: wnids.txt and train/ differ in class {odd}; unpack it again")
    annotations = root / "val" / "val_annotations.txt"
    in_one = (root / "val" / "images").is_dir()
    test = _annotated(annotations, passed["test"]) if in_one else class_files(root / "val", passed["test"])
    return load_files("tiny_imagenet", split, {"train": train, "test": test}, root, SIZE, passed[split])


def _annotated(path: Path, passed: Counter[str]) -> dict[str, list[str]]:
    """Class -> its images beside the file `path`, whose lines are: image, class, and a box that is not needed."""
    class_of = {}
    for cells in read_lines(path, "\t"):
        if len(cells) < 2:
            raise ValueError(f"{path}: expected lines of image, class and box, found '{cells[0]}'; unpack it again")
        class_of[cells[0]] = cells[1]
    there = {Path(image).name: image for image in images(path.parent / "images", passed)}
    odd = sorted(there.keys() ^ class_of.keys())
    if odd:
        place = path.parent / "images" / odd[0]
        raise ValueError(
            f"{place}: {'no line' if odd[0] in there else 'missing, but listed'} in {path}; unpack it again"
        )
    return {
        name: [there[image] for image in sorted(class_of) if class_of[image] == name]
        for name in sorted(set(class_of.values()))
    }
