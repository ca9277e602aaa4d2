"""Unpack the published files of a dataset into the folder that coupled/datasets reads: `coupled prepare-data`.

The sources are
* tiny_imagenet: tiny-imagenet-200.zip
* mini_imagenet: ARCHIVE [train.csv val.csv test.csv]
* imagenet: ILSVRC2012_img_train.tar ILSVRC2012_img_val.tar ILSVRC2012_devkit_t12.tar.gz
* any of the three: train-00000-of-00001.parquet validation-00000-of-00001.parquet ...

Archives are .zip, .tar or .tar.gz. A text file with one WordNet id per line, in the order of the validation images, can
replace ImageNet's devkit. For any of the three datasets the sources can be the parquet files of a Hugging Face dataset,
or a folder of them; reading them needs `pip install pyarrow`. Images are copied byte for byte.

A folder is called <name>.partial until it is complete. For ImageNet and for parquet files each split is such a folder.
After an interruption the same command continues with the files that are missing or differ. The program stops before it
has unpacked more than --max-gib, and before the disk is full.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from coupled.config.command_line import Parser, command_parser, positive_number
from coupled.monitoring.terminal import imports_done, interrupted, say

FOLDERS = {"tiny_imagenet": "tiny-imagenet-200", "mini_imagenet": "mini-imagenet", "imagenet": "imagenet"}
MAX_GIB = {"tiny_imagenet": 2.0, "mini_imagenet": 20.0, "imagenet": 200.0}  # ImageNet has 147 GB
GIB = 2**30


def parser() -> Parser:
    """Return the parser of the command."""
    examples = ["tiny_imagenet tiny-imagenet-200.zip", "mini_imagenet mini-imagenet.tar.gz --output data/mini-imagenet"]
    files = ["data/<folder>/   the images, copied byte for byte; called <folder>.partial until complete"]
    about = "Unpack the published files of a dataset. After an interruption, run the same command again to continue."
    result = command_parser("prepare-data", about, examples, files)
    result.add_argument("name", choices=FOLDERS, help="dataset")
    result.add_argument("sources", nargs="+", type=Path, metavar="FILE", help="archives, lists or parquet files")
    usual = ", ".join(f"data/{folder}" for folder in FOLDERS.values())
    result.add_argument("--output", type=Path, metavar="DIR", help=f"folder to create (default: {usual})")
    usual = ", ".join(f"{gib:g} for {name}" for name, gib in MAX_GIB.items())
    most = f"most GiB to unpack into one folder (default: {usual})"
    result.add_argument("--max-gib", type=positive_number, metavar="GIB", help=most)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 2 for bad input, 1 for an error of the file system."""
    from coupled.datasets.prepare.sources import prepare

    imports_done()
    command_line = parser()
    try:
        options = command_line.parse_args(arguments)
        most = int((options.max_gib or MAX_GIB[options.name]) * GIB)
        prepare(options.name, options.sources, options.output or Path("data") / FOLDERS[options.name], most)
    except (ValueError, OSError) as error:
        say(f"{command_line.prog}: {error}", sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        return interrupted(command_line.prog, "; the same command continues after the files that are unpacked")
    return 0
