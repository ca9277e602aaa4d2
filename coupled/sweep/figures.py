"""The figures of a sweep: the mean over seeds with a band of plus and minus one standard deviation.

A sweep over seeds alone has a figure against options of objectives, too, if three or more arms have different numbers.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from coupled.analysis.plots.drawing import save
from coupled.analysis.plots.figure_tables import add_legend
from coupled.analysis.plots.option_figures import options_figure
from coupled.analysis.plots.panel_figures import draw_panels
from coupled.analysis.selections.options import option_paths
from coupled.analysis.selections.panels import Panel, n_of
from coupled.sweep import panels as select
from coupled.sweep.names import spelled
from coupled.sweep.panels import Shown


def draw(folder: Path, rows: pd.DataFrame) -> list[Path]:
    """Write the figures of the sweep in `folder` from the rows that `collect` returned; return their paths.

    Raises ValueError if the rows lack a metric or an epoch of the figure's settings.
    """
    shown = select.shown(folder, rows)
    of_metrics = {metric: select.rows_of(rows, metric, shown.figure) for metric in shown.figure["metrics"]}
    figures: dict[str, Figure] = {}
    if shown.factor:
        for epoch in shown.figure["epochs"]:
            suffix = "" if epoch == "last" else f"_epoch{epoch}"
            chosen = select.at_epoch(of_metrics, epoch)
            figures[shown.factor.replace(".", "_") + suffix] = grid(shown, chosen, select.against_factor)
    if any(part["epoch"].nunique() > 1 for part in of_metrics.values()):
        figures["epochs"] = grid(shown, of_metrics, select.against_epochs)
    if not shown.factor and (paths := option_paths(shown.source.arm_settings)):
        panels = [
            select.against_epochs(shown, metric, part) for metric, part in select.at_epoch(of_metrics, "last").items()
        ]
        figures["options"] = options_figure(paths, panels, _about(shown, panels))
    return [
        path for name, figure in figures.items() for path in save(figure, folder / "figures" / name, shown.source.note)
    ]


def grid(
    shown: Shown, of_metrics: Mapping[str, pd.DataFrame], build: Callable[[Shown, str, pd.DataFrame], Panel]
) -> Figure:
    """Draw one column of panels per metric and one row per combination of the other keys."""
    first = next(iter(of_metrics.values()))
    combinations = (
        list(first[shown.others].drop_duplicates().itertuples(index=False, name=None)) if shown.others else [()]
    )
    panels = []
    for values in combinations:
        for metric, rows in of_metrics.items():
            for key, value in zip(shown.others, values, strict=True):
                rows = rows[rows[key] == value]
            panels.append(build(shown, metric, rows))
    figure = Figure(figsize=(3.3 * len(of_metrics) + 0.2, 2.7 * len(combinations) + 0.7), layout="constrained")
    cells = figure.subplots(len(combinations), len(of_metrics), squeeze=False, sharey="col")
    draw_panels(list(cells.flat), panels)
    for axes, panel in zip(cells.flat, panels, strict=True):
        if not panel.x.whole:  # the values of the factor
            axes.set_xticks(list(shown.places.values()), [spelled(value) for value in shown.places])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
    for axes, panel in zip(cells[0], panels, strict=False):
        axes.set_title(panel.y.title, fontsize="medium")
    for axes, values in zip(cells[:, 0], combinations, strict=True):
        axes.set_ylabel("\n".join(f"{key} = {spelled(value)}" for key, value in zip(shown.others, values, strict=True)))
    add_legend(figure, shown.source, _about(shown, panels))
    return figure


def _about(shown: Shown, panels: list[Panel]) -> str:
    """The reference arm, the layer, the split, and the numbers of images and seeds."""
    reference, layer, split = (shown.figure[key] for key in ("reference", "layer", "split"))
    return f"compared with {reference}, layer {layer}, {split} images; {n_of(panels)}"
