"""The command lines of the programs that compute theory without a run.

`--help` imports this module, so it imports no large library.
"""

import argparse
from math import inf
from pathlib import Path

from coupled.config.command_line import Parser, command_parser, positive, positive_number


def zero_or_more(text: str) -> float:
    """Return a number of 0 or more, for argparse's `type`."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < inf:
        raise argparse.ArgumentTypeError(f"got {text!r}; a number of 0 or more is allowed")
    return number


def directpred_theory() -> Parser:
    """`coupled directpred-theory`."""
    about = (
        "The two-layer linear model of DirectPred (arXiv 2102.06810): its gradient flow, fixed points and theorems.\n"
        "It needs no run. Existing files are replaced."
    )
    files = [
        "directpred_fixed_points.csv   fixed points of a mode, with stability, for each weight decay and EMA rate",
        "directpred_trajectories.csv   trajectories of a mode (p, s) without an EMA, from several starts",
        "directpred_theorems.csv       theorems 1 and 3 beside the integrated matrices",
        "directpred_sweep.csv          where a mode ends, for each weight decay and EMA rate of a grid",
        "figures/*.png, *.pdf          directpred_phase, directpred_parabola, directpred_sweep",
    ]
    parser = command_parser("directpred-theory", about, ["", "--eta 0 0.1 --sigma2 0.5 --output theory"], files)
    decays = "weight decays (default: 0 0.05 0.15 0.25)"
    parser.add_argument(
        "--eta", nargs="+", default=[0.0, 0.05, 0.15, 0.25], help=decays, type=zero_or_more, metavar="X"
    )
    rates = "learning rate of the predictor divided by that of the encoder (default: 1)"
    parser.add_argument("--alpha-p", type=positive_number, metavar="X", default=1.0, help=rates)
    parser.add_argument(
        "--sigma2", default=0.3, help="variance of the augmentation (default: 0.3)", type=zero_or_more, metavar="X"
    )
    parser.add_argument(
        "--start-p", default=0.1, help="p at the start of the sweep (default: 0.1)", type=zero_or_more, metavar="X"
    )
    start = "s at the start of the sweep (default: 0.1)"
    parser.add_argument("--start-s", type=positive_number, metavar="X", default=0.1, help=start)
    end = "time at which the sweep ends (default: 5000)"
    parser.add_argument("--time", type=positive_number, metavar="T", default=5000.0, help=end)
    grid = "values of eta and of beta in the sweep (default: 25)"
    parser.add_argument("--points", type=positive, metavar="N", default=25, help=grid)
    where = "folder to write to (default: directpred_theory)"
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("directpred_theory"), help=where)
    return parser
