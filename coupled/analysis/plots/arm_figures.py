"""The figures of single arms over epochs: quality of the representation, and collapse."""

from matplotlib.figure import Figure

from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.plots.panel_figures import panels_figure
from coupled.analysis.selections import arms
from coupled.analysis.selections.panels import Panel

SHOTS = 5  # labelled images per class in the panel of few-shot accuracy
QUALITY = {  # metric, variant -> title of the panel
    ("nccc", "euclidean"): "accuracy, nearest class centre",
    ("linear_probe", "regularised"): "accuracy, linear probe",
    ("knn", "cosine"): "accuracy, k-NN (k = 20)",
    ("few_shot", "nccc"): f"accuracy, {SHOTS} images per class",
    ("cdnv", "one_class"): "CDNV",
    ("directional_cdnv", "one_class"): "directional CDNV",
    ("effective_rank", "centred"): "effective rank",
    ("augmentation_spread", "relative"): "augmentation spread",
}
COLLAPSE = {  # metric, module -> title of the panel; a metric with a value per direction is averaged
    ("spread", "z"): "spread of z",
    ("effective_rank", "z"): "effective rank of z",
    ("alignment", "z"): "distance of two views, z",
    ("uniformity", "z"): "uniformity of z",
    ("effective_rank", "h"): "effective rank of h",
    ("asymmetry", "predictor"): "asymmetry of the predictor",
    ("eigenspace_alignment", "predictor"): "eigenspace alignment of predictor",
}


def quality(tables: FigureTables) -> Figure:
    """Return the figure of the metrics of quality.csv for h on test."""
    sources, looks = tables.sources, tables.looks
    panels = [*arms.quality(sources, looks), *arms.few_shot_over_epochs(sources, looks, SHOTS)]
    of_h = {panel.key[:2]: panel for panel in panels if panel.key[-2:] == ("h", "test")}
    chosen = [_titled(of_h[key], title) for key, title in QUALITY.items() if key in of_h]
    if not chosen:
        raise ValueError(f"{tables.folder / 'quality.csv'}: no rows of h on test to draw")
    figure = panels_figure(chosen, tables, short=True)
    figure.supylabel("h, test images", fontsize="medium")
    return figure


def collapse(tables: FigureTables) -> Figure:
    """Return the figure of the metrics of collapse.csv on test, one value per epoch."""
    sources, looks = tables.sources, tables.looks
    panels = [*arms.collapse(sources, looks), *arms.eigenspaces(sources, looks)]
    of_test = {panel.key[:2]: panel for panel in panels if panel.key[2] == "test"}
    chosen = [_titled(of_test[key], title) for key, title in COLLAPSE.items() if key in of_test]
    if not chosen:
        raise ValueError(f"{tables.folder / 'collapse.csv'}: no rows of test to draw")
    return panels_figure(chosen, tables, short=True)


def _titled(panel: Panel, title: str) -> Panel:
    """The panel with this short title."""
    panel.short = title
    return panel
