"""The command lines of the programs that measure classifiers.

`--help` imports this module, so it imports no large library.
"""

from coupled.analysis.parsers import OUTPUTS, _add_arms, _add_images, _add_split, _add_table
from coupled.config.command_line import Parser, command_parser, positive

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
