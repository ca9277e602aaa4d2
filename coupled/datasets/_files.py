"""Find the image files of a folder.

A class is a folder. Its images are all files below it with one of the endings of torchvision's ImageFolder. Classes and
images are sorted by name. Ignored files, such as hidden files, are counted.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from coupled.datasets import Permute
from coupled.datasets._pillow import SUFFIXES

SHOWN = 5  # kinds, classes or files that a message names

UNLABELLED = ""  # in place of a class name: no folder has this name

Files = Mapping[str, Sequence[str]]  # class name -> paths of its images; text, because creating `Path`s takes seconds


def check_same_classes(
    root: Path, one: Mapping[str, object], other: Mapping[str, object], names: Sequence[str]
) -> None:
    """Raise ValueError unless both splits have the same classes; `names` are those of the splits' folders."""
    odd = sorted(one.keys() ^ other.keys())
    if odd:
        more = f" and {len(odd) - SHOWN} more" if len(odd) > SHOWN else ""
        raise ValueError(
            f"dataset.root: {root}: {names[0]} and {names[1]} must have the same classes; only one of them has"
            f" {', '.join(odd[:SHOWN])}{more}"
        )


def class_files(folder: Path, passed: Counter[str] | None = None) -> dict[str, list[str]]:
    """Class name -> paths of its images, both sorted; the images may be anywhere below folder/<class>.

    Ignored files are counted in `passed`. Raises ValueError if the folder is missing or a class has no image.
    """
    if not folder.is_dir():
        raise ValueError(f"dataset.root: no folder {folder.resolve()}; put <class>/<image> files in it")
    passed = Counter() if passed is None else passed
    loose: Counter[str] = Counter()
    classes = folders(folder, loose)
    if not classes:
        there = f"{loose_images(loose)} images outside class folders" if loose_images(loose) else "no class folder"
        raise ValueError(f"dataset.root: {folder.resolve()} contains {there}; make one folder of images per class")
    passed.update({f"{kind} beside the classes": count for kind, count in loose.items()})
    files = {}
    for name in classes:
        others: Counter[str] = Counter()
        files[name] = images(folder / name, others)
        if not files[name]:
            there = f", but {_counts(others)}" if others else ""
            raise ValueError(
                f"dataset.root: {(folder / name).resolve()} contains no image{there}; put {', '.join(SUFFIXES)} files"
                " in it"
            )
        passed.update(others)
    return files


def class_names(files: Files) -> tuple[str, ...]:
    """The names of the classes; empty if the images have no labels."""
    return tuple(name for name in files if name != UNLABELLED)


def labels(files: Files) -> list[int]:
    """The label of every image, in the order of the files; -1 without labels."""
    first = -1 if UNLABELLED in files else 0
    return [label for label, of_class in enumerate(files.values(), first) for _ in of_class]


def names_below(root: Path, files: Files) -> tuple[str, ...]:
    """The paths of all images relative to `root`."""
    start = f"{root}{os.sep}"
    names = (path for of_class in files.values() for path in of_class)
    return tuple(name[len(start) :] if name.startswith(start) else os.path.relpath(name, root) for name in names)


def folders(folder: Path, passed: Counter[str] | None = None) -> list[str]:
    """The names of the folders in `folder`, sorted; other files are counted in `passed`.

    Raises ValueError for a name that is not text in this locale: such a name cannot be written to a table or page.
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
        if any(
            "\ud800" <= character <= "\udfff" for character in name
        ):  # how Python represents bytes that are not UTF-8
            raise ValueError(f"dataset.root: class folder {os.fsencode(folder / name)!r} has {_no_text(name)}")
    return sorted(names)


def _no_text(name: str) -> str:
    """What is wrong with a file name whose bytes are not text in this locale, and what to do."""
    try:
        os.fsencode(name).decode("utf-8")
    except UnicodeDecodeError:
        return "a name that is not UTF-8; rename it"
    return "a name in UTF-8, which this locale does not read; set PYTHONUTF8=1"


def loose_images(passed: Mapping[str, int]) -> int:
    """The number of images among the files that `folders` has counted."""
    return sum(passed.get(suffix, 0) for suffix in SUFFIXES)


def images(folder: Path, passed: Counter[str] | None = None) -> list[str]:
    """Paths of the images below `folder`, sorted by path component; other files are counted in `passed` by kind."""
    found = _walk(str(folder), Counter() if passed is None else passed, ())
    return sorted(found, key=lambda path: path.split(os.sep))  # noqa: PTH206 - the same order, and faster


def _walk(folder: str, passed: Counter[str], above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    status = os.stat(folder)  # noqa: PTH116 - text, not a `Path`
    here = status.st_dev, status.st_ino
    if here in above:
        raise ValueError(f"dataset.root: {folder}: a link to a folder that contains it; remove the link")
    with os.scandir(folder) as opened:
        entries = list(opened)
    for entry in entries:
        if entry.name.startswith("."):
            passed["hidden"] += 1
        elif entry.is_dir():
            yield from _walk(entry.path, passed, (*above, here))
        elif os.path.splitext(entry.name)[1].lower() not in SUFFIXES:  # noqa: PTH122 - a path takes ten times as long
            passed[_kind(entry.name)] += 1
        elif entry.is_file():
            yield entry.path
        else:
            raise ValueError(f"dataset.root: {entry.path}: not a regular file; remove it")


def passed_over(split: str, passed: Mapping[str, int]) -> Iterator[str]:
    """Describe the ignored files in one line, if there are any."""
    if passed:
        yield f"dataset: {split}: ignored {_counts(passed)}; images are files that end in {', '.join(SUFFIXES)}"


def divide(files: Files, share: float, permute: Permute) -> dict[str, Files]:
    """Divide the images: `share` of each class for train, the others for test, at least one image for each.

    The draw is one permutation of all images; within a split they keep their order. Raises ValueError for a class of
    one image.
    """
    first, places = 0, np.argsort(permute(sum(map(len, files.values()))))
    parts: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for name, paths in files.items():
        if len(paths) < 2:
            whose = f"class '{name}' has" if name != UNLABELLED else "there is"
            raise ValueError(f"dataset.split: {whose} {len(paths)} image; two are needed for train and test")
        order = np.argsort(places[first : first + len(paths)])
        kept = min(max(1, round(share * len(paths))), len(paths) - 1)
        for part, drawn in (("train", order[:kept]), ("test", order[kept:])):
            parts[part][name] = [paths[number] for number in sorted(drawn.tolist())]
        first += len(paths)
    return {**parts}


def read_lines(path: Path, separator: str) -> list[list[str]]:
    """The cells of the lines of a text file that are not empty. Raises ValueError if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable ({error}); unpack it again") from None
    return [[cell.strip() for cell in line.split(separator)] for line in lines if line.strip()]


def _kind(name: str) -> str:
    """The suffix of a file's name, as shown in messages."""
    suffix = Path(name).suffix.lower()
    if name.startswith("."):
        return "hidden"
    return suffix if suffix.isprintable() and 1 < len(suffix) <= 12 else "without a known suffix"


def _counts(passed: Mapping[str, int]) -> str:
    kinds = sorted(passed.items(), key=lambda kind: (-kind[1], kind[0]))
    others = sum(count for _, count in kinds[SHOWN:])
    return ", ".join([*(f"{count} {kind}" for kind, count in kinds[:SHOWN]), *([f"{others} others"] if others else [])])
