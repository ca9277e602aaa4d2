"""Unpack what an image set is published as into the folder that coupled/image_sets reads.

python scripts/prepare_images.py tiny_imagenet tiny-imagenet-200.zip
python scripts/prepare_images.py mini_imagenet ARCHIVE [train.csv val.csv test.csv]
python scripts/prepare_images.py imagenet ILSVRC2012_img_train.tar ILSVRC2012_img_val.tar ILSVRC2012_devkit_t12.tar.gz
python scripts/prepare_images.py NAME train-00000-of-00001.parquet validation-00000-of-00001.parquet ...

Archives may be .zip, .tar or .tar.gz. In place of ImageNet's devkit a text file will do that has one WordNet id a
line, in the order of the validation images. A Hugging Face dataset is given as its parquet files, or a folder of them,
for any of the three sets; that needs `pip install 'coupled[hf]'`. Images are copied byte for byte.

A folder gets its name when it is complete (of ImageNet and parquet files each split has its own); until then it is
called <name>.partial. Called again after an interruption, the program continues with the files that are missing.
"""

from coupled.terminal import imports_done, interrupted, prepare_terminal, say

if __name__ == "__main__":
    prepare_terminal()

import argparse
import io
import sys
import tarfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

from scipy.io import loadmat
from unpack_archives import Member, archive_members, tar_members, unpack
from unpack_parquet import WORDNET_ID, by_split, parquet_members

FOLDERS = {"tiny_imagenet": "tiny-imagenet-200", "mini_imagenet": "mini-imagenet", "imagenet": "imagenet"}


def prepare(name: str, sources: Sequence[Path], target: Path) -> None:
    """Unpack the `sources` of the image set `name` into `target`. Raises ValueError for sources that cannot be it."""
    for path in sources:
        if not path.exists():
            raise ValueError(f"{path}: no such file")
    parquet = [file for path in sources for file in (path.rglob("*.parquet") if path.is_dir() else [path])]
    if parquet and all(path.suffix == ".parquet" for path in parquet):
        for split, paths in by_split(parquet).items():
            unpack(parquet_members(paths), target / split, ", ".join(map(str, paths)))
    elif name == "imagenet":
        prepare_imagenet(sources, target)
    else:
        whole = chain.from_iterable(map(_plain_or_archive, sources))
        unpack(whole, target, ", ".join(map(str, sources)))


def prepare_imagenet(sources: Sequence[Path], target: Path) -> None:
    """The training images come in one archive a class, the validation images in one without classes: sort them."""
    train, val, labels = (_named(sources, *words) for words in (["_train"], ["_val."], ["devkit", ".txt"]))
    for path in sources:
        if path not in (train, val, labels):
            raise ValueError(f"{path}: not one of ILSVRC2012's archives by its name; leave it out or rename it")
    if not train and not val:
        raise ValueError(
            "imagenet: give ILSVRC2012_img_train.tar, or ILSVRC2012_img_val.tar with the devkit or a list of labels"
        )
    if val and not labels:
        raise ValueError(f"{val}: its labels are in ILSVRC2012_devkit_t12.tar.gz; give this file too")
    if train:
        unpack(_train_members(train), target / "train", str(train))
    if val and labels:
        unpack(_val_members(val, labels), target / "val", str(val))


def _plain_or_archive(path: Path) -> Iterator[Member]:
    if path.suffix == ".csv":
        yield Member(path.name, path.stat().st_size, lambda: path.open("rb"))
    else:
        yield from archive_members(path)


def _named(sources: Sequence[Path], *parts: str) -> Path | None:
    return next((path for path in sources if any(part in path.name for part in parts)), None)


def _train_members(path: Path) -> Iterator[Member]:
    for of_class in archive_members(path):
        with of_class.open() as content:
            for member in tar_members(content, f"{path}: {of_class.name}"):
                yield member._replace(name=f"{PurePosixPath(of_class.name).stem}/{member.name}")


def _val_members(path: Path, labels: Path) -> Iterator[Member]:
    """ILSVRC2012_val_00000001.JPEG is the first of the labels."""
    wordnet_ids = _val_labels(labels)
    for member in archive_members(path):
        file = PurePosixPath(member.name)
        number = file.stem.rpartition("_")[2]
        if not number.isdecimal() or not 1 <= int(number) <= len(wordnet_ids):
            raise ValueError(f"{path}: '{member.name}' is not one of the {len(wordnet_ids)} images of {labels}")
        yield member._replace(name=f"{wordnet_ids[int(number) - 1]}/{file.name}")


def _val_labels(path: Path) -> list[str]:
    """The WordNet id of each validation image: a text file's, or those of the devkit, which numbers the classes."""
    if path.suffix == ".txt":
        listed = path.read_text(encoding="utf-8").split()
        odd = next((each for each in listed if not WORDNET_ID.fullmatch(each)), None)
        if odd is not None:
            raise ValueError(f"{path}: '{odd}' is no WordNet id, such as n01440764; give the devkit instead")
        return listed
    content = {}
    for member in archive_members(path):
        if member.name.endswith(("data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt")):
            with member.open() as file:
                content[PurePosixPath(member.name).suffix] = file.read()
    if content.keys() != {".mat", ".txt"}:
        raise ValueError(f"{path}: no devkit of ILSVRC2012: meta.mat or the ground truth is missing")
    synsets = loadmat(io.BytesIO(content[".mat"]), squeeze_me=True)["synsets"]
    named = dict(zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True))
    return [str(named[int(number)]) for number in content[".txt"].split()]


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status: 2 for bad input."""
    parser = argparse.ArgumentParser(prog="prepare_images.py", description="Unpack an image set.", allow_abbrev=False)
    parser.add_argument("name", choices=FOLDERS, help="image set")
    parser.add_argument("sources", nargs="+", type=Path, metavar="FILE", help="archives, lists or parquet files")
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder to make (default: data/<usual name>)")
    imports_done()
    options = parser.parse_args(arguments)
    try:
        prepare(options.name, options.sources, options.to or Path("data") / FOLDERS[options.name])
    except (ValueError, OSError, tarfile.TarError) as error:
        say(f"prepare_images.py: {error}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        return interrupted("prepare_images.py", "; the same command goes on with what is unpacked")
    return 0


if __name__ == "__main__":
    sys.exit(main())
