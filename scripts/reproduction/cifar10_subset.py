"""Make the folder of images that configs/reproduction/cifar10.yaml reads: the first images of each class of CIFAR-10.

    python scripts/reproduction/cifar10_subset.py SOURCE [--output data/cifar10_10k]

SOURCE is a tar file with `train/<class>/*` and `test/<class>/*`, or a folder of this form. 1 000 images of each class
are for training and 300 for the test.
"""

import argparse
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from coupled.monitoring.terminal import say

IMAGES = {"train": 1000, "test": 300}  # of each class


def main() -> int:
    """Run the program and return its exit status: 2 for bad input."""
    parser = argparse.ArgumentParser(description="Copy the first images of each class of CIFAR-10.")
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="tar file or folder with train/<class>, test/<class>"
    )
    parser.add_argument("--output", type=Path, default=Path("data/cifar10_10k"), metavar="DIR", help="folder to make")
    options = parser.parse_args()
    if options.output.exists():
        parser.error(f"--output: '{options.output}' exists; remove it, or choose another folder")
    if options.source.is_dir():
        return copy(options.source, options.output, parser)
    if not options.source.is_file():
        parser.error(f"SOURCE: no file or folder '{options.source}'")
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(options.source) as archive:
                archive.extractall(folder, filter="data")
        except tarfile.TarError as error:
            parser.error(f"SOURCE: '{options.source}' cannot be unpacked: {error}")
        return copy(Path(folder), options.output, parser)


def copy(source: Path, output: Path, parser: argparse.ArgumentParser) -> int:
    """Copy the first images of each class, in the order of their names."""
    chosen = []
    for split, count in IMAGES.items():
        classes = sorted(path for path in (source / split).glob("*") if path.is_dir())
        if not classes:
            parser.error(f"SOURCE: no folder {split}/<class>")
        for folder in classes:
            images = sorted(path for path in folder.iterdir() if path.is_file())
            if len(images) < count:
                parser.error(f"SOURCE: {split}/{folder.name} has {len(images)} images; {count} are needed")
            chosen += [(path, output / split / folder.name / path.name) for path in images[:count]]
    for path, target in chosen:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    say(f"{output}: {len(chosen):,} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
