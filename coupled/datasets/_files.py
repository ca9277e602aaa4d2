"""What the sets of picture files share: which files a folder holds, decoding, and a dataset made of them.

A class is a folder, and its images are all files below it that end as torchvision's ImageFolder wants them. Classes and
images are taken in the order of their names. What is passed over, such as hidden and other files, is counted.
Shape letters: N images, S size.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from coupled.datasets import ImageDataset, channel_statistics
from coupled.datasets._pillow import SUFFIXES, read_picture, refuse

STATISTICS_IMAGES = 4096  # enough: a mean over so many images errs by 1/64 of the spread between images
LONGEST = 16  # times its shorter side: more of a picture is cut off before it is resized, which bounds the memory
SHOWN = 5  # kinds, classes or files that a message names

Files = Mapping[str, Sequence[Path]]  # class name -> its images


def load_files(
    name: str, split: str, files: Mapping[str, Files], root: Path, size: int, passed: Mapping[str, int] | None = None
) -> ImageDataset:
    """The images of `files[split]`, as RGB, shorter side scaled to `size`, centre square; labels in the files' order.

    Mean and std are those of the train images: of all up to 4096, of 4096 evenly spaced ones if there are more.
    `passed` says what was passed over. Raises ValueError for classes that differ between the splits, and for images
    that cannot be decoded, all of the split in one line.
    """
    check_same_classes(root, files["train"], files["test"], ("train", "test"))
    paths = {part: [path for of_class in classes.values() for path in of_class] for part, classes in files.items()}
    images_N3SS, sides_N = read(paths[split], size)
    measured = np.linspace(
        0, len(paths["train"]), min(len(paths["train"]), STATISTICS_IMAGES), endpoint=False, dtype=int
    )
    mean, std = channel_statistics(
        images_N3SS[measured] if split == "train" else read([paths["train"][row] for row in measured], size)[0]
    )
    return ImageDataset(
        name=name,
        split=split,
        images_N3HW=images_N3SS,
        labels_N=torch.tensor([label for label, of_class in enumerate(files[split].values()) for _ in of_class]),
        class_names=tuple(files[split]),
        mean=mean,
        std=std,
        files_N=tuple(os.path.relpath(path, root) for path in paths[split]),
        notes=(*passed_over(split, passed or {}), *enlarged(split, sides_N, size)),
    )


def check_same_classes(
    root: Path, one: Mapping[str, object], other: Mapping[str, object], names: Sequence[str]
) -> None:
    """Raise ValueError unless both splits have the same classes; `names` are those of the splits' folders."""
    odd = sorted(one.keys() ^ other.keys())
    if odd:
        more = f" and {len(odd) - SHOWN} more" if len(odd) > SHOWN else ""
        raise ValueError(
            f"dataset.root: {root}: {names[0]} and {names[1]} must have the same classes; only one has"
            f" {', '.join(odd[:SHOWN])}{more}"
        )


def class_files(folder: Path, passed: Counter[str] | None = None) -> dict[str, list[Path]]:
    """Class name -> paths of its images, both sorted; they lie anywhere below folder/<class>.

    What is passed over is counted in `passed`. Raises ValueError if the folder is missing or a class has no image.
    """
    if not folder.is_dir():
        raise ValueError(f"dataset.root: there is no folder {folder.resolve()}; put <class>/<image> files in it")
    passed = Counter() if passed is None else passed
    loose: Counter[str] = Counter()
    classes = folders(folder, loose)
    if not classes:
        there = f"{loose_images(loose)} images that are in no class" if loose_images(loose) else "no class"
        raise ValueError(f"dataset.root: {folder.resolve()} holds {there}; make one folder of images a class")
    passed.update({f"{kind} beside the classes": count for kind, count in loose.items()})
    files = {}
    for name in classes:
        others: Counter[str] = Counter()
        files[name] = images(folder / name, others)
        if not files[name]:
            there = f", but {_counts(others)}" if others else ""
            raise ValueError(
                f"dataset.root: {(folder / name).resolve()} holds no image{there}; put {', '.join(SUFFIXES)} files"
                " in it"
            )
        passed.update(others)
    return files


def folders(folder: Path, passed: Counter[str] | None = None) -> list[str]:
    """The names of the folders in `folder`, sorted; other files are counted in `passed`.

    Raises ValueError for a name that is no text in this locale: no table or page of the run could hold it.
    """
    names = []
    with os.scandir(folder) as opened:
        entries = list(opened)
    for entry in entries:
        if not entry.name.startswith(".") and entry.is_dir():
            names.append(entry.name)
        elif passed is not None:
            passed[_kind(entry.name)] += 1
    for name in names:
        if any("\ud800" <= character <= "\udfff" for character in name):  # what bytes become that are no UTF-8
            raise ValueError(f"dataset.root: class folder {os.fsencode(folder / name)!r} has {_no_text(name)}")
    return sorted(names)


def _no_text(name: str) -> str:
    """What is wrong with the name of a file whose bytes are no text here, and what to do."""
    try:
        os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError:
        return "a name that is not UTF-8; rename it"
    return "a name in UTF-8, which this locale does not read; set PYTHONUTF8=1"


def loose_images(passed: Mapping[str, int]) -> int:
    """How many images there are among what `folders` has counted."""
    return sum(passed.get(suffix, 0) for suffix in SUFFIXES)


def images(folder: Path, passed: Counter[str] | None = None) -> list[Path]:
    """The images below `folder`, sorted by their paths; what else lies there is counted in `passed` by its kind."""
    return sorted(_walk(folder, Counter() if passed is None else passed, ()))


def _walk(folder: Path, passed: Counter[str], above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    status = folder.stat()
    here = status.st_dev, status.st_ino
    if here in above:
        raise ValueError(f"dataset.root: {folder}: a link to a folder that holds it; remove it")
    with os.scandir(folder) as opened:
        entries = list(opened)
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            passed["hidden"] += 1
        elif entry.is_dir():
            yield from _walk(path, passed, (*above, here))
        elif path.suffix.lower() not in SUFFIXES:
            passed[_kind(entry.name)] += 1
        elif entry.is_file():
            yield path
        else:
            raise ValueError(f"dataset.root: {path}: not a regular file; remove it")


def passed_over(split: str, passed: Mapping[str, int]) -> Iterator[str]:
    """A line on what was passed over, if anything was."""
    if passed:
        yield f"dataset: {split}: passed over {_counts(passed)}; images are files that end in {', '.join(SUFFIXES)}"


def enlarged(split: str, sides_N: Sequence[int], size: int) -> Iterator[str]:
    """A line on pictures that are smaller than they are shown, if there are any."""
    smaller = [side for side in sides_N if side < size]
    if smaller:
        yield (
            f"dataset.image_size: {len(smaller)} of {len(sides_N)} {split} images are enlarged to {size} px; their"
            f" shorter side is {min(smaller)} px or more"
        )


def read_lines(path: Path, separator: str) -> list[list[str]]:
    """The cells of the lines of a text file that are not empty. Raises ValueError if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable ({error}); unpack it again") from None
    return [[cell.strip() for cell in line.split(separator)] for line in lines if line.strip()]


def read(paths: Sequence[Path], size: int) -> tuple[Tensor, list[int]]:
    """The pictures as uint8 [N, 3, S, S], and the shorter side that each had.

    Pillow decodes in several threads, which changes nothing but the time. Raises ValueError that tells of all pictures
    that cannot be decoded.
    """
    images_N3SS = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    sides_N, faults = [], []
    with ThreadPoolExecutor() as pool:
        for row, found in enumerate(pool.map(partial(_square_or_fault, size=size), paths)):
            if isinstance(found, str):
                faults.append(found)
            else:
                images_N3SS[row] = found[0]
                sides_N.append(found[1])
    refuse(faults)
    return images_N3SS, sides_N


def _square(picture_3HW: Tensor, size: int) -> Tensor:
    """The largest central square of a picture, `size` pixels a side, uint8 [3, S, S]."""
    high, wide = picture_3HW.shape[1:]
    longest = LONGEST * min(high, wide)
    cut_3HW = center_crop(picture_3HW, [min(high, longest), min(wide, longest)])
    return center_crop(resize(cut_3HW, [size], antialias=True), [size, size])


def _square_or_fault(path: Path, size: int) -> tuple[Tensor, int] | str:
    try:
        picture_3HW = read_picture(path)
    except ValueError as error:
        return str(error)
    return _square(picture_3HW, size), min(picture_3HW.shape[1:])


def _kind(name: str) -> str:
    """The suffix of a file's name, as it may be shown."""
    suffix = Path(name).suffix.lower()
    if name.startswith("."):
        return "hidden"
    return suffix if suffix.isprintable() and 1 < len(suffix) <= 12 else "without a known suffix"


def _counts(passed: Mapping[str, int]) -> str:
    kinds = sorted(passed.items(), key=lambda kind: (-kind[1], kind[0]))
    others = sum(count for _, count in kinds[SHOWN:])
    return ", ".join([*(f"{count} {kind}" for kind, count in kinds[:SHOWN]), *([f"{others} others"] if others else [])])
