"""The demo's last step: one summary table, the paths of what was written, and demo.png.

python analysis/demo.py [--run DIR] [--reference cl]

Reads weight_gap.csv and test_alignment.csv of the run, nothing else.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from analysis.command_line import add_run, run_program
from analysis.run_folder import newest_run
from coupled.checked import Parser

# Okabe and Ito's colours, which colour-blind readers can tell apart; dashes and markers do the same in grey print
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def read(path: Path, reference: str) -> pd.DataFrame:
    """The rows of a CSV about `reference`. Raises ValueError if there are none."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; analysis/weight_gap.py and analysis/alignment.py write what is needed")
    rows = pd.read_csv(path)
    rows = rows[rows["reference"] == reference]
    if rows.empty:
        raise ValueError(f"{path}: no rows with the reference '{reference}'")
    return rows


def curves(folder: Path, reference: str) -> dict[str, pd.DataFrame]:
    """Against epochs (rows), for each arm (columns): the weight gap `mean`, and CKA and RSA of h on the test images."""
    gaps = read(folder / "weight_gap.csv", reference)
    scores = read(folder / "test_alignment.csv", reference)
    scores = scores[(scores["layer"] == "h") & (scores["samples"] == scores["samples"].max())]
    arms = list(dict.fromkeys([*gaps["arm"], *scores["arm"]]))  # one order, so that an arm keeps its colour
    return {
        "gap": gaps[gaps["layer"] == "mean"].pivot(index="epoch", columns="arm", values="gap").reindex(columns=arms),
        **{
            name: scores[scores["metric"] == name]
            .pivot(index="epoch", columns="arm", values="value")
            .reindex(columns=arms)
            for name in ("cka", "rsa")
        },
    }


def summary(measured: dict[str, pd.DataFrame], reference: str) -> Table:
    """One row an arm: the values at the last epoch that all of them have."""
    epoch = max(set.intersection(*(set(rows.index) for rows in measured.values())))
    table = Table(title=f"against {reference}, after epoch {epoch}")
    table.add_column("arm")
    for heading in ("CKA (test, h)", "RSA (test, h)", "weight gap (mean)"):
        table.add_column(heading, justify="right")
    for arm in measured["gap"].columns:
        table.add_row(arm, *(f"{measured[name].loc[epoch, arm]:.3f}" for name in ("cka", "rsa", "gap")))
    return table


def draw(measured: dict[str, pd.DataFrame], reference: str, path: Path) -> None:
    """Left the weight gap, right the test CKA of h, against epochs; one line an arm."""
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _lines(left, measured["gap"], f"weight gap to {reference} (mean over layers)")
    _lines(right, measured["cka"], f"CKA with {reference} (test images, h)")
    left.set_ylim(bottom=0)
    right.set_ylim(top=1.01)
    left.legend(frameon=False, handlelength=3.5)
    figure.savefig(path, dpi=200)


def _lines(axes: Axes, curves: pd.DataFrame, label: str) -> None:
    for number, arm in enumerate(curves.columns):
        axes.plot(
            curves.index,
            curves[arm],
            label=str(arm),
            color=COLOURS[number % len(COLOURS)],
            linestyle=DASHES[number % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            markevery=max(1, len(curves) // 10),
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)


def demo(options: Namespace) -> None:
    """Print the table and the paths, write the figure."""
    run = options.run or newest_run(Path("runs"))
    folder = run / "analysis"
    measured = curves(folder, options.reference)
    draw(measured, options.reference, folder / "demo.png")
    Console().print(summary(measured, options.reference))
    for name in ("weight_gap.csv", "train_alignment.csv", "test_alignment.csv", "demo.png"):
        if (folder / name).is_file():
            print(folder / name)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    options = Parser(prog="demo.py", description="Summary and figure of the demo.", allow_abbrev=False)
    add_run(options)
    options.add_argument("--reference", default="cl", metavar="ARM", help="arm of the comparison (default: cl)")
    return run_program(demo, options, arguments)


if __name__ == "__main__":
    sys.exit(main())
