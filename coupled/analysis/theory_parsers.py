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
        "It needs no run. With --run-dir: the theory beside the arms of a run with a linear encoder. Existing files are"
        " replaced."
    )
    files = [
        "directpred_fixed_points.csv   fixed points of a mode, with stability, for each weight decay and EMA rate",
        "directpred_trajectories.csv   trajectories of a mode (p, s) without an EMA, from several starts",
        "directpred_theorems.csv       theorems 1 and 3 beside the integrated matrices",
        "directpred_sweep.csv          where a mode ends, for each weight decay and EMA rate of a grid",
        "figures/*.png, *.pdf          directpred_phase, directpred_parabola, directpred_sweep",
        "directpred_run.csv            with --run-dir, instead of these: trained, integrated and decoupled modes",
        "figures/directpred_run.png    with --run-dir, and directpred_run.pdf",
    ]
    examples = ["--eta 0 0.1 --sigma2 0.5 --output theory", "--run-dir runs/directpred_linear"]
    parser = command_parser("directpred-theory", about, examples, files)
    of_run = "run folder with a linear encoder: compare its snapshots with the theory"
    parser.add_argument("--run-dir", dest="run", type=Path, metavar="DIR", help=of_run)
    accept = "with --run-dir: use the images although they have changed since the run"
    parser.add_argument("--accept-changed-images", action="store_true", help=accept)
    allow = "with --run-dir: import the user-defined code that run.json names; read that code first"
    parser.add_argument("--allow-code", action="store_true", help=allow)
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
    where = "folder to write to (default: directpred_theory, or DIR/analysis with --run-dir)"
    parser.add_argument("--output", type=Path, metavar="DIR", help=where)
    return parser


def similarity_descent() -> Parser:
    """`coupled similarity-descent`."""
    about = (
        "Gradient descent with each similarity as a free variable, for CL and NSCL, beside the a-priori bound of\n"
        "arXiv 2510.08852, which is proved for these dynamics. It needs no run. Exit status 1: a bound is violated."
    )
    files = [
        "similarity_descent.csv   distance, CKA and RSA of CL and NSCL with their bounds, one score per row",
        "figures/*.png, *.pdf     similarity_descent",
    ]
    examples = ["", "--classes 100 --temperatures 0.5 1 --output theory"]
    parser = command_parser("similarity-descent", about, examples, files)
    temperatures = "temperatures (default: 0.1 0.5 1)"
    parser.add_argument(
        "--temperatures", nargs="+", type=positive_number, metavar="TAU", default=[0.1, 0.5, 1.0], help=temperatures
    )
    parser.add_argument("--num-images", type=positive, metavar="N", default=512, help="points (default: 512)")
    parser.add_argument("--classes", type=positive, metavar="C", default=10, help="classes (default: 10)")
    parser.add_argument("--batch-size", type=positive, metavar="B", default=256, help="points a step (default: 256)")
    parser.add_argument("--steps", type=positive, metavar="T", default=500, help="steps (default: 500)")
    parser.add_argument("--lr", type=positive_number, metavar="X", default=2.0, help="learning rate (default: 2)")
    parser.add_argument("--seed", type=int, metavar="S", default=0, help="seed of points and batches (default: 0)")
    where = "folder to write to (default: similarity_descent)"
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("similarity_descent"), help=where)
    return parser
