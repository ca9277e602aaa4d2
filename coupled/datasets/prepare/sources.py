"""The published files of each dataset: files of images, files of labels, and the folders made from them."""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from coupled.datasets.prepare.archives import (
    GIB,
    Member,
    RefusedError,
    archive_members,
    readable,
    shown,
    tar_members,
    unpack,
)
from coupled.datasets.prepare.parquet import WORDNET_ID, by_split, parquet_members

LARGEST_CLASS = 4 * GIB
LARGEST_LIST = 2**26  # bytes of a file of the devkit


def prepare(name: str, sources: Sequence[Path], target: Path, most: int) -> None:
    """Unpack the `sources` of the dataset `name` into `target`, with a limit on the bytes per folder.

    Raises ValueError for sources of another dataset, OSError if they cannot be written.
    """
    for path in sources:
        if not path.exists():
            raise ValueError(f"{path}: no such file")
        if path.is_dir() and not any(path.rglob("*.parquet")):
            raise ValueError(f"{path}: a folder without parquet files; give archives or parquet files")
        for file in path.rglob("*.parquet") if path.is_dir() else [path]:
            if not file.is_file():
                raise ValueError(f"{file}: not a regular file; leave it out")
    parquet = [file for path in sources for file in (path.rglob("*.parquet") if path.is_dir() else [path])]
    if parquet and all(path.suffix == ".parquet" for path in parquet):
        for split, paths in by_split(parquet).items():
            unpack(parquet_members(paths), target / split, ", ".join(map(str, paths)), most)
    elif name == "imagenet":
        prepare_imagenet(sources, target, most)
    else:
        whole = chain.from_iterable(_plain_or_archive(path, most) for path in sources)
        unpack(whole, target, ", ".join(map(str, sources)), most)


def prepare_imagenet(sources: Sequence[Path], target: Path, most: int) -> None:
    """Sort ImageNet's images: the training set has one archive per class, the validation set one without classes."""
    train, val, labels = (_named(sources, *words) for words in (["_train"], ["_val."], ["devkit", ".txt"]))
    for path in sources:
        if path not in (train, val, labels):
            raise ValueError(f"{path}: its name is not that of an ILSVRC2012 archive; leave it out or rename it")
    if not train and not val:
        raise ValueError(
            "imagenet: give ILSVRC2012_img_train.tar, or ILSVRC2012_img_val.tar with the devkit or a list of labels"
        )
    if val and not labels:
        raise ValueError(f"{val}: its labels are in ILSVRC2012_devkit_t12.tar.gz; give this file too")
    if train:
        unpack(_train_members(train, most), target / "train", str(train), most)
    if val and labels:
        unpack(_val_members(val, labels, most), target / "val", str(val), most)


def _plain_or_archive(path: Path, most: int) -> Iterator[Member]:
    if path.suffix == ".csv":
        yield Member(path.name, path.stat().st_size, lambda: path.open("rb"))
    else:
        yield from archive_members(path, most)


def _named(sources: Sequence[Path], *parts: str) -> Path | None:
    return next((path for path in sources if any(part in path.name for part in parts)), None)


def _train_members(path: Path, most: int) -> Iterator[Member]:
    for of_class in archive_members(path, most):
        if of_class.size > LARGEST_CLASS:
            raise RefusedError(
                f"{path}: {shown(of_class.name)} has {of_class.size:,} bytes; no class of ImageNet has 1 GiB"
            )
        with of_class.open() as content:
            for member in tar_members(content, f"{path}: {shown(of_class.name)}", most):
                yield member._replace(name=f"{PurePosixPath(of_class.name).stem}/{member.name}")


def _val_members(path: Path, labels: Path, most: int) -> Iterator[Member]:
    """Sort validation images by class: ILSVRC2012_val_00000001.JPEG has the first label."""
    wordnet_ids = _val_labels(labels)
    for member in archive_members(path, most):
        file = PurePosixPath(member.name)
        number = file.stem.rpartition("_")[2]
        if not number.isdecimal() or len(number) > 8 or not 1 <= int(number) <= len(wordnet_ids):
            raise RefusedError(
                f"{path}: '{shown(member.name)}' is not one of the {len(wordnet_ids)} images of {labels}"
            )
        yield member._replace(name=f"{wordnet_ids[int(number) - 1]}/{file.name}")


def _val_labels(path: Path) -> list[str]:
    """The WordNet id of each validation image, from a text file or from the devkit, which numbers the classes."""
    if path.suffix == ".txt":
        listed = path.read_text(encoding="utf-8").split()
        odd = next((each for each in listed if not WORDNET_ID.fullmatch(each)), None)
        if odd is not None:
            raise ValueError(f"{path}: '{odd}' is not a WordNet id such as n01440764; use the devkit instead")
        return listed
    content = {}
    for member in archive_members(path, GIB):
        if member.name.endswith(("data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt")):
            with readable(str(path)), member.open() as file:
                content[PurePosixPath(member.name).suffix] = file.read(LARGEST_LIST)
    if content.keys() != {".mat", ".txt"}:
        raise ValueError(f"{path}: not the devkit of ILSVRC2012: meta.mat or the ground truth is missing")
    try:
        synsets = loadmat(io.BytesIO(content[".mat"]), squeeze_me=True)["synsets"]
        named = dict(zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True))
        found = [str(named[int(number)]) for number in content[".txt"].split()]
    except (MatReadError, LookupError, ValueError, TypeError, NotImplementedError, zlib.error, struct.error) as error:
        raise ValueError(f"{path}: meta.mat or the ground truth is damaged ({error}); fetch it again") from None
    odd = next((each for each in found if not WORDNET_ID.fullmatch(each)), None)
    if odd is not None:
        raise ValueError(f"{path}: '{shown(odd)}' in meta.mat is not a WordNet id; fetch it again")
    return found
