"""The figures of classifiers: reliability curves."""

import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.plots.drawing import grid, line, plain
from coupled.analysis.plots.figure_tables import FigureTables, add_legend
from coupled.analysis.tables import largest_sample

NAMES = {"logits": "classifier of the arm", "h": "linear probe on h", "z": "linear probe on z"}  # by module


def reliability(tables: FigureTables) -> Figure:
    """Return the reliability curves of test at the last epoch: a panel for each classifier, a line for each arm.

    Below the diagonal a classifier is too confident. Bins without images have no point. The legend names the last
    epoch. Raises ValueError without rows of test.
    """
    rows = tables.read("reliability.csv", "accuracy")
    rows = rows[rows["split"] == "test"]
    if rows.empty:
        raise ValueError(f"{tables.folder / 'reliability.csv'}: no rows of test to draw")
    epoch = rows["epoch"].max()
    rows = rows[rows["epoch"] == epoch].sort_values("bin")
    panels = {
        name: _curves(rows[rows["module"] == module]) for module, name in NAMES.items() if module in {*rows["module"]}
    }
    figure, cells = grid(len(panels))
    for axes, (name, curves) in zip(cells, panels.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1, label="calibrated")
        for arm in tables.arms(curves):
            curve = curves[curves["arm"] == arm]
            line(axes, curve["confidence"], curve["accuracy"], arm, tables.styles[arm])
        plain(axes)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", aspect="equal")
        axes.set_title(f"{name},\ntest images, epoch {epoch}", fontsize="medium")
    cells[0].set_ylabel("accuracy")
    add_legend(figure, tables)
    return figure


def _curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the bins with images, of the largest sample and of the last number of bins in the table."""
    rows = largest_sample(rows)
    return rows[(rows["bins"] == rows["bins"].iloc[-1]) & (rows["count"] > 0)]
