"""Figures and report draw the same numbers, because both draw the panels of `selections`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from support.report_parts import report_runs

from coupled.analysis.plots.figure_tables import FigureTables, figure_tables
from coupled.analysis.plots.pair_figures import layers_alignment, layers_gap
from coupled.analysis.plots.panel_figures import panels_figure
from coupled.analysis.report.charts import figure as plotly_figure
from coupled.analysis.report.heat_maps import alignment_by_layer, weights_by_layer
from coupled.analysis.run import open_run
from coupled.analysis.selections import accuracy, arms, bounds, losses, pairs
from coupled.analysis.selections.layers import colour_range, of_weights
from coupled.analysis.selections.looks import Looks
from coupled.analysis.selections.panels import Axis, Panel, Series
from coupled.analysis.selections.styles import DASHES, MARKERS, arm_styles

KINDS: dict[str, Callable[..., list[Panel]]] = {
    "drift": pairs.drift,
    "alignment": pairs.alignment,
    "angles": pairs.angles,
    "gap_alignment": pairs.gap_alignment,
    "alignment_accuracy": accuracy.alignment_accuracy,
    "alignment_bounds": bounds.alignment_bounds,
    "growth": bounds.growth,
    "weight_shape": bounds.weight_shape,
    "quality": arms.quality,
    "few_shot": arms.few_shot,
    "collapse": arms.collapse,
    "spectra": arms.spectra,
    "throughput": arms.throughput,
    "losses": losses.losses,
    "loss_gap": losses.loss_gap,
    "nscl_reached": losses.nscl_reached,
    "steps": losses.steps,
}


def drawn_by_matplotlib(figure: Figure, place: int) -> list[dict[str, Any]]:
    """Label, colour, dash, x and y of each series of a panel, in the order of labels."""
    axes = figure.axes[place]
    lines = [
        {"name": each.get_label(), "colour": each.get_color(), "xy": np.asarray(each.get_xydata(), dtype=float)}
        for each in axes.lines
    ]
    points = [
        {"name": each.get_label(), "colour": None, "xy": np.ma.filled(each.get_offsets(), np.nan)}
        for each in axes.collections
        if each.get_label() and not str(each.get_label()).startswith(("_", "epoch", "last", "noise"))
    ]
    return sorted([*lines, *points], key=lambda each: str(each["name"]))


def drawn_by_plotly(figure: dict[str, Any]) -> list[dict[str, Any]]:
    traces = [each for each in figure["data"] if "name" in each and not each["name"].startswith(("noise", "epoch"))]
    return sorted(
        [
            {
                "name": each["name"],
                "colour": each["line"]["color"],
                "xy": np.array([each["x"], each["y"]], dtype=float).T,
            }
            for each in traces
        ],
        key=lambda each: str(each["name"]),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_figure_and_report_draw_the_same_numbers(measured_run: Path, kind: str) -> None:
    """Two selections of rows would disagree in some case, and the reader would not know which one is right."""
    runs = report_runs(measured_run)
    panels = KINDS[kind](runs, Looks(runs))
    assert panels
    figure = panels_figure(panels, figure_tables(open_run(measured_run)))
    for place, panel in enumerate(panels):
        static, interactive = drawn_by_matplotlib(figure, place), drawn_by_plotly(plotly_figure(panel))
        assert [each["name"] for each in static] == [each["name"] for each in interactive]
        for one, other in zip(static, interactive, strict=True):
            np.testing.assert_allclose(one["xy"], other["xy"], rtol=1e-6)
            assert one["colour"] in (None, other["colour"])
        rings = [each.get_offsets() for each in figure.axes[place].collections if each.get_label() == "epoch 3"]
        of_page = [each for each in plotly_figure(panel)["data"] if each.get("meta", {}).get("ring")]
        assert len(of_page) == (3 * len(rings))  # each is hidden with its arm
        drawn = sorted(point for each in of_page for point in zip(each["x"], each["y"], strict=True))
        np.testing.assert_allclose(drawn, sorted(map(tuple, np.concatenate(rings))) if rings else [], rtol=1e-6)


@pytest.mark.parametrize("kind", ["drift", "quality", "collapse", "alignment_accuracy"])
def test_a_figure_reads_the_rows_that_the_report_reads(measured_run: Path, kind: str) -> None:
    """The figure reads one table at a time, the report all at once."""
    runs, tables = report_runs(measured_run), figure_tables(open_run(measured_run))
    assert KINDS[kind](tables.sources, tables.looks) == KINDS[kind](runs, Looks(runs))


MAPS = {
    "alignment": (layers_alignment, alignment_by_layer, "cka, to cl, test images", "CKA with cl, test<br>images"),
    "gap": (layers_gap, weights_by_layer, "gap by stage, to cl", "weight gap to cl"),
}


@pytest.mark.parametrize("kind", MAPS)
def test_figure_and_report_draw_the_same_maps(measured_run: Path, kind: str) -> None:
    """Layers or stages, epochs, cells and range of colours; both say in the same words what the colours are."""
    draw, of_page, variant, title = MAPS[kind]
    runs = report_runs(measured_run)
    figure = draw(figure_tables(open_run(measured_run)))
    page = of_page(runs, Looks(runs)).variants[variant]
    assert page["layout"]["coloraxis"]["colorbar"]["title"]["text"].partition("<br>colours")[0] == title
    assert figure.axes[-1].get_ylabel().partition("\n")[0] == title.replace("<br>", " ")
    assert page["layout"]["yaxis"]["title"]["text"] == figure.axes[0].get_ylabel()
    heats = {each["name"]: each for each in page["data"] if each["type"] == "heatmap"}
    assert [axes.get_title() for axes in figure.axes if axes.images] == list(heats)
    layers = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    for axes in figure.axes[: len(heats)]:
        heat = heats[axes.get_title()]
        assert heat["y"] == layers
        assert axes.yaxis_inverted()  # the first layer is at the top of both
        assert page["layout"]["yaxis"]["autorange"] == "reversed"
        assert axes.images[0].get_cmap().name == page["layout"]["coloraxis"]["colorscale"].lower()
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), np.array(heat["z"], float), rtol=1e-6)
        low, high = axes.images[0].get_clim()
        scale = page["layout"]["coloraxis"]
        assert low == pytest.approx(scale["cmin"] if kind == "alignment" else 0, rel=1e-6)
        assert high == pytest.approx(1 if kind == "alignment" else scale["cmax"], rel=1e-6)


def test_maps_of_many_layers_are_maps_of_stages_first(tmp_path: Path) -> None:
    """Forty rows of text are too small for a figure and a telephone; the page offers the single layers, too."""
    source = FigureTables(tmp_path, "cl", arm_styles(["cl", "nscl"]), [])
    names = [f"layer{stage}.conv{place}" for stage in (1, 2) for place in range(13)]
    row = {"epoch": 1, "reference": "cl", "arm": "nscl", "gap": 0.1}
    tensors = [{**row, "tensor": name, "module": name, "kind": "conv"} for name in names]
    stages = [{**row, "module": f"layer{stage}", "aggregate": "mean"} for stage in (1, 2)]
    wrong = [{**row, "module": "layer1", "aggregate": "sum"}, {**row, "aggregate": "mean"}]
    wrong += [{**row, "tensor": "b", "module": "layer1.conv0", "kind": "running"}]
    many = of_weights(source, pd.DataFrame([*tensors, *stages, *wrong]), "gap")
    assert [(maps.rows, len(maps.layers)) for maps in many] == [("stage", 2), ("layer", 26)]
    few = of_weights(source, pd.DataFrame([*tensors[:20], *stages, *wrong]), "gap")
    assert [(maps.rows, len(maps.layers)) for maps in few] == [("layer", 20)]


def test_colours_of_a_map_are_not_used_up_by_a_few_extreme_values() -> None:
    """One tensor with a hundred times the gap of the others would leave one colour for all others."""
    values = np.linspace(0.1, 0.3, 200)
    assert colour_range(values, True) == (values.min(), values.max(), False)
    low, high, cut = colour_range([*values, 20.0], True)
    assert (low, cut) == (0.1, True)
    assert 0.28 < high < 0.3
    assert colour_range([*values, 20.0], False) == (0.1, 20.0, False)
    assert colour_range([0.5, float("nan")], True) == (0.5, 0.5, False)


def test_both_draw_the_same_dashes_and_markers() -> None:
    """Every dash and marker of matplotlib has one of plotly of its own."""
    for pairs_of_names in (DASHES, MARKERS):
        assert len({*pairs_of_names.values()}) == len(pairs_of_names)


@pytest.mark.parametrize("count", [1, 2, 8, 9])
def test_few_values_on_a_logarithmic_axis_have_a_tick_each(measured_run: Path, count: int) -> None:
    """Other ticks would be at numbers of images that were not measured; a curve of one value would be invisible."""
    shots = [5 * 2.0**place for place in range(count)]
    style = arm_styles(["cl"])["cl"]
    line = Series("bound", "cl", style, shots, [0.1] * count, kind="curve")
    panel = Panel(("few",), "few", Axis("images per class", log=True), Axis("error", log=True), series=[line])
    drawn = panels_figure([panel], figure_tables(open_run(measured_run))).axes[0]
    made = plotly_figure(panel)
    few = count <= 8
    assert made["layout"]["xaxis"].get("tickvals") == (shots if few else None)
    assert (list(drawn.get_xticks()) == shots) == few
    assert (made["data"][0]["mode"] == "markers") == (count == 1)
    assert len(drawn.collections) == (count == 1)
    if few:
        low, high = drawn.get_xlim()
        assert low < shots[0] <= shots[-1] < high
        assert made["layout"]["xaxis"]["range"] == pytest.approx(np.log10([low, high]))
