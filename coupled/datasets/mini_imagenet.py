"""mini-ImageNet: 100 classes of ImageNet, 600 images each; default size 84 px.

O. Vinyals et al., "Matching Networks for One Shot Learning" (2016), arXiv 1606.04080; the usual list of images is by
S. Ravi, H. Larochelle (2017), https://github.com/twitter-research/meta-learning-lstm. The images are ImageNet's, whose
terms (https://www.image-net.org/download) allow non-commercial research and education.

The lists split the *classes* (64 / 16 / 20) for few-shot learning. The papers on CL and NSCL train and test on all 100
classes, so here the three parts are joined and the *images* of each class are split: a sixth (100 of 600) goes to test,
chosen by a digest of their names, so the split never changes. Read from one of these layouts:
    train.csv, val.csv, test.csv (filename,label) and images/<filename>
    <class>/*.jpg
    train/<class>/*.jpg, val/<class>/*.jpg, test/<class>/*.jpg with other classes in each
    train/<class>/*.jpg, test/<class>/*.jpg or val/<class>/*.jpg with the same classes: this split is kept
"""

from collections import Counter
from hashlib import blake2b
from pathlib import Path

from coupled.datasets import ImageDataset, check_range, check_split, prepare_command
from coupled.datasets._files import Files, class_files, read_lines
from coupled.datasets._pictures import load_files

SIZE = 84
PARTS = ("train", "val", "test")
HELD_OUT = 6  # every sixth image is a test image


def load(split: str, *, root: Path | None = None, image_size: int = SIZE) -> ImageDataset:
    """mini-ImageNet in the folder `root` (default data/mini-imagenet), shorter side at `image_size`, centre square.

    Mean and std are those of 4096 evenly spaced train images. Raises ValueError if it is missing or incomplete.
    """
    check_split(split)
    check_range("image_size", image_size, 8)
    root = root or Path("data/mini-imagenet")
    if not root.is_dir():
        raise ValueError(
            f"dataset.root: no mini-ImageNet in {root.resolve()}; fetch an archive of it or its parquet files"
            " (https://huggingface.co/datasets/timm/mini-imagenet) and run"
            f" '{prepare_command('mini_imagenet', 'ARCHIVE', root)}'"
        )
    passed: Counter[str] = Counter()
    said = passed if split == "train" else None
    return load_files("mini_imagenet", split, _files(root, passed), root, image_size, said)


def _files(root: Path, passed: Counter[str] | None = None) -> dict[str, Files]:
    lists = [root / f"{part}.csv" for part in PARTS]
    if any(path.is_file() for path in lists):
        return _split(_listed(root, lists))
    parts = {part: class_files(root / part, passed) for part in PARTS if (root / part).is_dir()}
    if not parts:
        return _split(class_files(root, passed))
    classes = [name for files in parts.values() for name in files]
    if len(set(classes)) == len(classes):
        for part in PARTS:
            if part not in parts:
                raise ValueError(
                    f"dataset.root: {root / part}: missing; train, val and test have different classes, and all of"
                    " them are the set; unpack it too"
                )
        return _split({name: paths for files in parts.values() for name, paths in files.items()})
    return {"train": parts.get("train", {}), "test": parts.get("test") or parts.get("val", {})}


def _listed(root: Path, lists: list[Path]) -> dict[str, list[str]]:
    """Class -> its images in root/images, from lists with a first line filename,label."""
    files: dict[str, list[str]] = {}
    for path in lists:
        header, *rows = read_lines(path, ",") or [[]]
        if header != ["filename", "label"] or any(len(row) != 2 for row in rows):
            raise ValueError(
                f"{path}: expected rows of filename,label, found {','.join(header)}; use the original list"
            )
        for name, label in rows:
            files.setdefault(label, []).append(str(root / "images" / name))
    for image in (image for images in files.values() for image in images):
        if not Path(image).is_file():
            raise ValueError(f"{image}: missing, but listed in {', '.join(map(str, lists))}; unpack it again")
    return files


def _split(files: Files) -> dict[str, Files]:
    """Every sixth image of each class, at least one, is a test image, in the order of a digest of class and name."""
    parts: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for name, paths in sorted(files.items()):
        if len(paths) < 2:
            raise ValueError(f"dataset.root: class {name} has {len(paths)} image; two are needed for train and test")
        drawn = sorted(paths, key=lambda path: blake2b(f"{name}/{Path(path).name}".encode(), digest_size=16).digest())
        held_out = max(1, len(paths) // HELD_OUT)
        parts["test"][name], parts["train"][name] = sorted(drawn[:held_out]), sorted(drawn[held_out:])
    return {**parts}
