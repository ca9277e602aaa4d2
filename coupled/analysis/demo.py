"""The demo's last step: one summary table, the paths of what was written, and demo.png.

python coupled/analysis/demo.py [--run-dir DIR] [--reference ARM]

Reads run.json, weight_gap.csv and test_alignment.csv of the run, nothing else.
"""

import io
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from coupled.analysis import parsers
from coupled.analysis.driver import run_program
from coupled.analysis.plots.drawing import Style, arm_styles, line, over_epochs
from coupled.analysis.run import newest_run, read_description, usual_reference
from coupled.analysis.tables import largest_sample, read_newest, whole_encoder
from coupled.monitoring.terminal import say
from coupled.storage.atomic_files import write_durably


def read(path: Path, value: str, reference: str) -> pd.DataFrame:
    """The rows of a CSV about `reference`. Raises ValueError if there are none."""
    rows = read_newest(path, value)
    rows = rows[rows["reference"] == reference]
    if rows.empty:
        raise ValueError(f"{path}: no rows with the reference '{reference}'")
    return rows


def curves(folder: Path, reference: str) -> dict[str, pd.DataFrame]:
    """Against epochs (rows), for each arm (columns): the weight gap `mean`, and CKA and RSA of h on the test images."""
    gaps = read(folder / "weight_gap.csv", "gap", reference)
    scores = read(folder / "test_alignment.csv", "value", reference)
    scores = largest_sample(scores[scores["module"] == "h"])
    arms = list(dict.fromkeys([*gaps["arm"], *scores["arm"]]))  # one order, so that an arm keeps its colour
    return {
        "gap": whole_encoder(gaps, "mean").pivot(index="epoch", columns="arm", values="gap").reindex(columns=arms),
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


def draw(measured: dict[str, pd.DataFrame], reference: str, styles: dict[str, Style]) -> Figure:
    """Left the weight gap, right the test CKA of h, against epochs; one line an arm."""
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _lines(left, measured["gap"], f"weight gap to {reference} (mean over layers)", styles)
    _lines(right, measured["cka"], f"CKA with {reference} (test images, h)", styles)
    left.set_ylim(bottom=0)
    right.set_ylim(top=1.01)
    left.legend(frameon=False, handlelength=3.5)
    return figure


def _lines(axes: Axes, curves: pd.DataFrame, label: str, styles: dict[str, Style]) -> None:
    for arm in curves.columns:
        line(axes, curves.index, curves[arm], arm, styles[arm])
    over_epochs(axes)
    axes.set_ylabel(label)


def demo(options: Namespace) -> None:
    """Print the table and the paths, write the figure."""
    run = options.run or newest_run(Path("runs"))
    folder = run / "analysis"
    arms = list(read_description(run)["settings"]["arms"])
    reference = options.reference or usual_reference(arms)
    measured = curves(folder, reference)
    picture = io.BytesIO()
    draw(measured, reference, arm_styles(arms)).savefig(picture, dpi=200)
    write_durably(folder / "demo.png", picture.getvalue())
    Console().print(summary(measured, reference))
    for name in ("weight_gap.csv", "train_alignment.csv", "test_alignment.csv", "demo.png"):
        if (folder / name).is_file():
            say(folder / name)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    return run_program(demo, parsers.demo(), arguments)
