"""The command lines of the programs that measure classifiers.

`--help` imports this module, so it imports no large library.
"""

from pathlib import Path

from coupled.analysis.corruptions.constants import CORRUPTIONS, INSTALL, NEED_PHOTOGRAPHS, SEVERITIES
from coupled.analysis.parsers import OUTPUTS, _add_arms, _add_images, _add_reference, _add_split, _add_table
from coupled.config.command_line import Parser, command_parser, positive

CLASSIFIERS = ("own", "probe")
BINS = 15  # as in metrics/arm/_logits.py, which needs torch


def calibration() -> Parser:
    """`coupled calibration`."""
    about = (
        "Reliability curves: accuracy against confidence, of each arm's own classifier and of a linear probe,\n"
        "at every snapshot."
    )
    examples = ["--split test --epochs 0,10,20", "--run-dir runs/demo --arms ce nscl --layers h z --bins 10"]
    files = ["reliability.csv   one bin of confidence per row"]
    parser = command_parser("calibration", about, examples, files)
    _add_arms(parser)
    _add_table(parser)
    _add_split(parser)
    layers = "inputs of the probe: h (embedding), z (projection) or both (default: h)"
    parser.add_argument("--layers", nargs="+", choices=OUTPUTS, default=["h"], help=layers)
    bins = f"number of bins of equal width (default: {BINS})"
    parser.add_argument("--bins", type=positive, metavar="K", default=BINS, help=bins)
    _add_images(parser)
    return parser


def robustness() -> Parser:
    """`coupled robustness`."""
    about = (
        "Errors on corrupted test images: the corruptions of ImageNet-C and CIFAR-C at five severities, generated\n"
        f"from the clean images ({', '.join(NEED_PHOTOGRAPHS)} needs `{INSTALL}`) or read from a folder."
    )
    examples = ["--num-images 1000", "--corrupted-images CIFAR-10-C --classifier probe --reference cl"]
    files = [
        "robustness.csv       error of each arm for each corruption and severity",
        "robustness_mce.csv   mean errors, and mean corruption errors relative to the reference arm",
    ]
    parser = command_parser("robustness", about, examples, files)
    _add_arms(parser)
    _add_reference(parser)
    _add_table(parser, "the last")
    names = f"one or more of {', '.join(CORRUPTIONS)} (default: all there are)"
    parser.add_argument("--corruptions", nargs="+", metavar="NAME", help=names)
    severities = "default: all; a mean corruption error needs all"
    parser.add_argument(
        "--severities", nargs="+", type=int, choices=SEVERITIES, default=list(SEVERITIES), help=severities
    )
    classifier = "own: the arm's classifier if it has one, else a linear probe on h (default); probe: the probe for all"
    parser.add_argument("--classifier", choices=CLASSIFIERS, default=CLASSIFIERS[0], help=classifier)
    folder = "folder of corrupted test images, as CIFAR-10-C (<corruption>.npy) or ImageNet-C (<corruption>/1/<class>/)"
    parser.add_argument("--corrupted-images", type=Path, metavar="FOLDER", help=folder)
    _add_images(parser)
    return parser
