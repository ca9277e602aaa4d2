"""Make the folder of images that configs/reproduction/cifar10.yaml reads: the first images of each class of CIFAR-10.

    python scripts/reproduction/cifar10_subset.py SOURCE [--classes 10] [--output data/cifar10_10k]

SOURCE is a tar file with `train/<class>/*` and `test/<class>/*`, or a folder of this form. 10 000 images are for
training, equally many of each class, and 300 of each class for the test. With `--classes 5` only the first five classes
by name are copied, with 2 000 training images each.
"""

import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from coupled.analysis.driver import report_fault
from coupled.config.command_line import Parser
from coupled.config.errors import report_error
from coupled.monitoring.terminal import say

TRAIN, TEST = 10_000, 300  # training images in all, test images of each class
CLASSES = (2, 5, 10)


def main() -> int:
    """Run the program and return its exit status: 2 for bad input."""
    parser = Parser(prog="cifar10_subset.py", description="Copy the first images of each class of CIFAR-10.")
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="tar file or folder with train/<class>, test/<class>"
    )
    parser.add_argument("--output", type=Path, default=Path("data/cifar10_10k"), metavar="DIR", help="folder to make")
    parser.add_argument(
        "--classes", type=int, choices=CLASSES, default=10, help="number of classes, the first by name (default: 10)"
    )
    try:
        options = parser.parse_args()
        make(options.source, options.output, options.classes)
    except ValueError as error:
        return report_error(parser.prog, error)
    except OSError as error:
        return report_fault(parser.prog, error)
    return 0


def make(source: Path, output: Path, number: int) -> None:
    """Copy the images of `number` classes from a folder or a tar file. An interrupted copy is no dataset."""
    if output.exists():
        raise ValueError(f"--output: '{output}' exists; remove it, or choose another folder")
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    count = unpack(source, partial, number)
    partial.rename(output)
    say(f"{output}: {count:,} images")


def unpack(source: Path, output: Path, number: int) -> int:
    """Copy from a folder, or from a tar file after unpacking it; return the number of images."""
    if source.is_dir():
        return copy(source, output, number)
    if not source.is_file():
        raise ValueError(f"SOURCE: no file or folder '{source}'")
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(source) as archive:
                archive.extractall(folder, filter="data")
        except tarfile.TarError:
            raise ValueError(f"SOURCE: '{source}' is not a tar file, or it is damaged") from None
        return copy(Path(folder), output, number)


def copy(source: Path, output: Path, number: int) -> int:
    """Copy the first images of each of the first `number` classes, in the order of their names; return their number."""
    chosen = []
    for split, count in {"train": TRAIN // number, "test": TEST}.items():
        classes = sorted(path for path in (source / split).glob("*") if path.is_dir())[:number]
        if len(classes) < number:
            raise ValueError(f"SOURCE: {len(classes)} folders {split}/<class>; {number} are needed")
        for folder in classes:
            images = sorted(path for path in folder.iterdir() if path.is_file())
            if len(images) < count:
                raise ValueError(f"SOURCE: {split}/{folder.name} has {len(images)} images; {count} are needed")
            chosen += [(path, output / split / folder.name / path.name) for path in images[:count]]
    for path, target in chosen:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return len(chosen)


if __name__ == "__main__":
    sys.exit(main())
