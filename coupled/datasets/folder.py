"""Your own images from folders, one per class, or without classes; the licence is that of your images.

One of these layouts is read; within a class, images may be in subfolders:
    train/<class>/*.png and test/<class>/*.png; instead of test also val or validation
    <class>/*.png, divided by `dataset.split`
    the same without <class>/: images without labels
"""

import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from coupled.datasets import MOST_IN_MEMORY, AnyImageDataset, Permute, _cache, check_range, check_split
from coupled.datasets._decoder import shorter_side
from coupled.datasets._files import (
    SHOWN,
    UNLABELLED,
    Files,
    check_same_classes,
    class_files,
    class_names,
    divide,
    folders,
    images,
    loose_images,
)
from coupled.datasets._layouts import check_layout
from coupled.datasets._pictures import list_files, load_files
from coupled.datasets._pillow import refuse

SIZE = 64
SMALLEST, LARGEST = 8, 4096
MANY = 2000  # from this number of images on, reading their headers takes longer than reading the cache
TESTS = ("test", "val", "validation")
Labels = Literal["auto", "none"]


class Found(NamedTuple):
    """The images of a folder: by split, or under "all" if they are not divided yet; and the ignored files of each.

    `places` are the folders that were read, `unread` the names of the other folders beside them.
    """

    parts: dict[str, Files]
    passed: dict[str, Counter[str]]
    places: dict[str, Path]
    unread: list[str]


def load(
    part: str,
    permute: Permute | None = None,
    /,
    *,
    root: Path | None = None,
    image_size: int | None = None,
    split: float | None = None,
    labels: Labels = "auto",
    in_memory: bool | Literal["auto"] = "auto",
) -> AnyImageDataset:
    """The images of `part` "train" or "test" below `root`, as RGB, the shorter side at `image_size`, centre square.

    Mean and std are those of the train images: of all up to 4096, of 4096 evenly spaced ones if there are more.

    Args:
        part: "train" or "test".
        permute: function that draws the permutation for the split.
        root: the folder.
        image_size: in pixels; without it, `own_size`.
        split: share of each class for training, above 0 and below 1, if root is not divided into train and test.
        labels: "auto": each folder is a class; if there is no folder, the images have no labels. "none": folders are
            not classes, and no image has a label.
        in_memory: hold the images decoded in memory, or read them from the disk whenever they are needed; "auto": in
            memory if the decoded images of both splits take at most 8 GiB.

    Raises:
        ValueError: for a missing folder, an empty class, classes that differ between the splits, and images that
            cannot be decoded.
    """
    check_split(part)
    if image_size is not None:
        check_range("image_size", image_size, SMALLEST, LARGEST)
    found = _find(root, split, labels)
    assert root is not None
    files = found.parts
    if split is not None:
        assert permute is not None, "load_dataset gives it"
        files = divide(files["all"], split, permute)
    passed = found.passed.get("all" if split is not None and part == "train" else part, Counter[str]())
    size = image_size or _shared_side(found.parts)
    needed = 3 * size**2 * sum(len(of_class) for classes in files.values() for of_class in classes.values())
    held = needed <= MOST_IN_MEMORY if in_memory == "auto" else in_memory
    result = (load_files if held else list_files)("folder", part, files, root, size, passed)
    notes = [_counted(part, files[part], found.places.get(part, root))]
    if part == "train" and split is not None:
        each = "images" if UNLABELLED in files[part] else "images of each class"
        notes.append(f"dataset.split: {split:g} of the {each} for training, drawn with the seed")
    if part == "test" and found.unread:
        of, more = (
            found.places[part].name,
            f" and {len(found.unread) - SHOWN} more" if len(found.unread) > SHOWN else "",
        )
        notes.append(f"dataset: {root}: ignored {', '.join(found.unread[:SHOWN])}{more}; only train and {of} are read")
    if part == "train" and not held:
        why = (
            f"decoded they take {needed / 2**30:,.1f} GiB, more than 8" if in_memory == "auto" else "in_memory is false"
        )
        notes.append(f"dataset.in_memory: the images stay on the disk ({why})")
    return replace(result, notes=(*notes, *result.notes))


def own_size(*, root: Path | None = None, split: float | None = None, labels: Labels = "auto") -> int:
    """The shorter side of the images if all share it and it is allowed, otherwise 64 pixels.

    Raises ValueError for folders that are not such a dataset, and for images whose header cannot be read.
    """
    return _shared_side(_find(root, split, labels).parts)


def _find(root: Path | None, split: float | None, labels: Labels) -> Found:
    """The images below `root`, not divided yet. Raises ValueError for folders that are not such a dataset."""
    if root is None:
        raise ValueError("dataset.root: missing; give the folder that holds train/<class>/ and test/<class>/")
    if split is not None:
        return _find_undivided(root, split, labels)
    if labels == "auto":
        check_layout(root, "folder")
    test = next((root / name for name in TESTS if (root / name).is_dir()), root / "test")
    for folder in (root / "train", test):
        if not folder.is_dir():
            raise ValueError(
                f"dataset.root: no folder {folder.resolve()}; put <class>/<image> files in it, or set"
                " dataset.split=0.9 to divide one folder of classes"
            )
    passed = {"train": Counter[str](), "test": Counter[str]()}
    files = {"train": _images(root / "train", labels, passed["train"]), "test": _images(test, labels, passed["test"])}
    if (UNLABELLED in files["train"]) != (UNLABELLED in files["test"]):
        without, others = ("train", test.name) if UNLABELLED in files["train"] else (test.name, "train")
        raise ValueError(
            f"dataset.root: {root}: {without} has no class folders, but {others} has; set dataset.labels=none to"
            " train without labels"
        )
    check_same_classes(root, files["train"], files["test"], ("train", test.name))
    unread = [name for name in folders(root) if name not in ("train", test.name)]
    return Found(files, passed, {"train": root / "train", "test": test}, unread)


def _find_undivided(root: Path, split: float, labels: Labels) -> Found:
    if not 0 < split < 1:
        raise ValueError(f"dataset.split: got {split:g}; allowed is a share for training above 0 and below 1")
    if not root.is_dir():
        raise ValueError(f"dataset.root: no folder {root.resolve()}; put <class>/<image> files in it")
    parts = [name for name in ("train", *TESTS) if (root / name).is_dir()]
    if parts and labels == "auto":
        alone = f"dataset.root={root / 'train'}" if parts == ["train"] else "no dataset.split"
        raise ValueError(
            f"dataset.split: got {split:g}, but {root} is already divided into {', '.join(parts)}; use {alone}"
        )
    passed = {"all": Counter[str]()}
    return Found({"all": _images(root, labels, passed["all"])}, passed, {}, [])


def _images(folder: Path, labels: Labels, passed: Counter[str]) -> Files:
    """The images by class; under `UNLABELLED` if they have no labels."""
    loose: Counter[str] = Counter()
    if labels == "auto" and (folders(folder, loose) or not loose_images(loose)):
        return class_files(folder, passed)
    found = images(folder, passed)
    if not found:
        raise ValueError(f"dataset.root: {folder.resolve()} contains no image")
    return {UNLABELLED: found}


def _counted(part: str, files: Files, root: Path) -> str:
    """Describe the images of a split and their classes in one line."""
    names, total = class_names(files), sum(map(len, files.values()))
    if not names:
        return f"dataset: {part}: {total:,} images without labels in {root}"
    shown = ", ".join(f"{name} {len(files[name]):,}" for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"dataset: {part}: {total:,} images in {len(names)} class folders of {root}: {shown}{more}"


def _shared_side(parts: dict[str, Files]) -> int:
    """The result of `own_size`; if there are many images it is cached."""
    paths = [path for classes in parts.values() for of_class in classes.values() for path in of_class]
    if len(paths) < MANY or not _cache.most_bytes():
        return _measured_side(paths)
    with contextlib.suppress(OSError):
        key = _cache.key_of(paths, 0)
        kept = _cache.read_side(key)
        if kept is None:
            kept = _measured_side(paths)
            _cache.write_side(key, kept)
        return kept
    return _measured_side(paths)


def _measured_side(paths: list[str]) -> int:
    sides: set[int] = set()
    faults: list[str] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), 1024):
            found = list(pool.map(_side_or_fault, paths[start : start + 1024]))
            sides |= {each for each in found if isinstance(each, int)}
            faults += [each for each in found if isinstance(each, str)]
            if len(sides) > 1 and not faults:
                return SIZE  # loading the images reports all bad images
    refuse(faults)
    side = sides.pop()
    return side if SMALLEST <= side <= LARGEST else SIZE


def _side_or_fault(path: str) -> int | str:
    try:
        return shorter_side(path)
    except ValueError as error:
        return str(error)
