"""What both renderers of a panel show: possible values, visible points and intervals, text inside the picture."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from support.report_parts import changed, report_runs

from coupled.analysis.plots.drawing import grid
from coupled.analysis.plots.pair_figures import alignment_matrix
from coupled.analysis.plots.panel_figures import draw_panels
from coupled.analysis.report.charts import figure as plotly_figure
from coupled.analysis.report.heat_maps import alignment_by_layer
from coupled.analysis.report.page_tables import fits, settings
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.report.terms import unbroken, with_options
from coupled.analysis.selections.arms import collapse, eigenspaces, few_shot
from coupled.analysis.selections.layers import Maps
from coupled.analysis.selections.looks import Looks
from coupled.analysis.selections.panels import EPOCHS, Axis, Panel, Series, n_of
from coupled.analysis.selections.styles import NOISE, Style
from coupled.sweep.panels import _panel as sweep_panel

BLUE = Style("#0072B2", "-", "o")


@pytest.fixture(scope="module")
def run(measured_run: Path) -> ReportRun:
    return report_runs(measured_run)[0]


def test_an_interval_that_reaches_zero_is_left_out_of_a_logarithmic_axis() -> None:
    """The band filled the panel of thirteen arms down to its lower end."""
    low = [0.5, -1.0, 0.5, 0.5]
    line = Series("a", "a", BLUE, [0.0, 1.0, 2.0, 3.0], [1.0] * 4, low, [3.0] * 4, seeds=3)
    panel = Panel(("a",), "a", EPOCHS, Axis("criterion", log=True), series=[line])
    bands = [each["y"] for each in plotly_figure(panel)["data"] if "name" not in each]
    assert bands == [[0.5], [3.0], [0.5, 0.5], [3.0, 3.0]]
    axes = Figure().subplots()
    draw_panels([axes], [panel])
    heights = np.concatenate([path.vertices[:, 1] for path in axes.collections[0].get_paths()])
    assert heights.min() == 0.5
    assert n_of([panel]).endswith("over n = 3 seeds; intervals that reach 0 are not drawn")
    assert "reach" not in n_of([replace(panel, y=Axis("criterion"))])


def test_the_band_of_a_mean_ends_at_the_possible_values() -> None:
    """CKA of 1.02: the mean plus one standard deviation of three seeds, drawn above the last tick."""
    line = Series("a", "a", BLUE, [0.0, 1.0], [0.9, 0.9], [0.8, -0.1], [1.1, 1.2], seeds=3)
    panel = Panel(("a",), "a", EPOCHS, Axis("CKA", low=0.0, high=1.0), series=[line])
    low, high, _ = (each["y"] for each in plotly_figure(panel)["data"])
    assert (low, high) == ([0.8, 0.0], [1.0, 1.0])
    axes = Figure().subplots()
    draw_panels([axes], [panel])
    heights = np.concatenate([path.vertices[:, 1] for path in axes.collections[0].get_paths()])
    assert (heights.min(), heights.max()) == (0.0, 1.0)


def test_points_of_a_single_epoch_use_the_height_of_their_panel() -> None:
    """Plotly starts the axis of points side by side at 0: accuracies from 0.97 to 0.98 were one line of points."""
    series = [Series(name, name, BLUE, [5.0], [y], [y - 0.01], [y + 0.01]) for name, y in (("a", 0.97), ("b", 0.995))]
    panel = Panel(("a",), "a", EPOCHS, Axis("accuracy", low=0.0, high=1.0), series=series)
    low, high = plotly_figure(panel)["layout"]["yaxis"]["range"]
    assert 0.95 < low < 0.96
    assert high == 1.0
    log = replace(panel, y=Axis("error", log=True))
    low, high = plotly_figure(log)["layout"]["yaxis"]["range"]
    assert low < np.log10(0.96) < np.log10(1.005) < high < 0.01
    assert "range" not in plotly_figure(replace(panel, x=Axis("gap")))["layout"]["yaxis"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0.3, 2.0), (0.1, 2.0)),  # the nearer power of ten is added
        ((0.8, 8.0), (0.8, 10.0)),
        ((2.0, 5.0), (1.0, 10.0)),
        ((1.0, 1.0), (0.1, 1.0)),
        ((0.09, 2e3), None),
    ],
)
def test_a_logarithmic_axis_has_two_powers_of_ten(ends: tuple[float, float], expected: Any) -> None:
    """A value cannot be read from an axis with one tick, and 6 x 10^-1 is no power of ten."""
    panel = Panel(("a",), "a", EPOCHS, Axis("error", log=True), series=[Series("a", "a", BLUE, [0.0, 1.0], [*ends])])
    axes = Figure().subplots()
    draw_panels([axes], [panel])
    low, high = axes.get_ylim()
    found = plotly_figure(panel)["layout"]["yaxis"].get("range")
    if expected is None:
        assert found is None
    else:
        assert 10 ** np.array(found) == pytest.approx(expected, rel=0.2)
        assert low < expected[0] < expected[1] < high
    assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 2
    assert not [tick for tick in axes.get_yticks(minor=True) if low <= tick <= high]


def test_panels_that_share_a_logarithmic_axis_show_all_their_values() -> None:
    """The limits of a panel with few powers of ten cut off the eigenvalues of the panel below it."""
    panels = [
        Panel((name,), name, EPOCHS, Axis("eigenvalue", log=True), series=[Series("a", "a", BLUE, [0.0, 1.0], ends)])
        for name, ends in (("a", [1e-6, 1.0]), ("b", [0.3, 9.0]))
    ]
    for order in (panels, panels[::-1]):
        cells = Figure().subplots(2, 1, sharey="col")
        draw_panels(cells, order)
        low, high = cells[0].get_ylim()
        assert low < 1e-6 < 9.0 < high


def test_many_numbers_of_images_are_given_as_a_range() -> None:
    """The classes of a dataset differ in their numbers of images."""
    panel = Panel(("a",), "a", EPOCHS, Axis("CKA"))
    for number, expected in ((36, "n = 36 test images"), (1035, "n = 36 or 1 035 test images")):
        panel.count(pd.DataFrame({"num_images": [number]}), "test")
        assert n_of([panel]) == expected
    panel.count(pd.DataFrame({"num_images": [37, 9]}), "test")
    assert n_of([panel]) == "n = 9 to 1 035 test images"


def test_points_at_the_end_of_an_axis_are_whole() -> None:
    """CKA is 1 at the start: half of the point was cut off."""
    panel = Panel(("a",), "a", EPOCHS, Axis("CKA", high=1.0), series=[Series("a", "a", BLUE, [0.0, 1.0], [1.0, 0.5])])
    assert plotly_figure(panel)["data"][0]["cliponaxis"] is False


def test_errors_at_one_number_of_shots_are_side_by_side(run: ReportRun) -> None:
    """Twelve points and their bars were drawn over each other."""
    for panel in few_shot([run], Looks([run])):
        assert panel.only_epoch == 1
        assert np.diff(panel.shifts()).min() > 0.05
    quality = run.table("quality.csv")
    two = pd.concat([quality, quality[quality["shots"] == 1].assign(shots=5)])
    other = replace(run, tables={**run.tables, "quality.csv": two})
    assert all(panel.x.log for panel in few_shot([other], Looks([other])))


def test_the_axis_of_a_profile_has_possible_values_only_and_is_the_same_at_every_epoch(run: ReportRun) -> None:
    """With one layer, its axis of CKA went up to 1.5; it moved with the slider."""
    maps = Maps("", "layer", "", ["h"], [0, 1], {"a": [[1.0, float("nan")]]}, possible=(0.0, 1.0))
    assert maps.ends == (0.95, 1.0)
    chart = alignment_by_layer([run], Looks([run])).variants["cka, to cl, test images"]
    last = max(key for key in chart["layout"] if key.startswith("xaxis"))
    low, high = chart["layout"][last]["range"]
    cells = [cell for each in chart["data"] if each["type"] == "heatmap" for row in each["z"] for cell in row]
    assert 0 <= low <= min(cells) <= max(cells) <= high <= 1


def test_points_of_two_runs_differ_and_twins_are_grey_in_the_switches(run: ReportRun) -> None:
    """A point has no dash, which tells the lines of two runs apart; the switch of a twin had another colour."""
    runs = [replace(run, name=name) for name in ("one", "other")]
    looks = Looks(runs)
    styles = [looks.style(each, "nscl") for each in runs]
    assert styles[0].color == styles[1].color
    assert styles[0].marker != styles[1].marker
    description = run.run.description
    arms = description["settings"]["arms"]
    twin = {**arms, "again": {**arms["cl"], "twin": "cl"}}

    class Twin(ReportRun):
        arm_settings = property(lambda self: twin)  # type: ignore[assignment]

    swatches = Looks([Twin("x", run.run, {})]).swatches
    assert [arm for arm, colour in swatches.items() if colour == NOISE] == ["again"]


def test_an_arm_has_one_label_in_the_figure_of_collapse(run: ReportRun) -> None:
    """The mean over directions had no deviation over seeds: the legend named each arm twice."""
    rows = pd.DataFrame(
        {
            "epoch": epoch, "split": "test", "arm": "cl", "module": "predictor", "metric": metric, "variant": "",
            "component": component, "value": value, "num_images": 9,
        }
        for epoch in (0, 1)
        for metric, component, value in (
            ("asymmetry", np.nan, 0.5), *(("eigenspace_alignment", k, 0.1 * k) for k in (1, 2)),
        )
    )  # fmt: skip
    members = tuple(
        replace(run, tables={"collapse.csv": rows.assign(value=rows["value"] * factor)}) for factor in (1.0, 2.0, 3.0)
    )
    means = rows.assign(value=2 * rows["value"], value_sd=rows["value"])
    source = replace(run, tables={"collapse.csv": means}, seeds=3, members=members)
    (one,), (other,) = (select([source], Looks([source])) for select in (collapse, eigenspaces))
    assert one.series[0].label == other.series[0].label == "cl · ± sd, n = 3"
    assert other.series[0].y == pytest.approx([0.3, 0.3])
    assert other.series[0].high == pytest.approx([0.45, 0.45])


@pytest.mark.parametrize("count", [4, 10])
def test_all_text_of_the_matrix_is_inside_the_picture(count: int) -> None:
    """The first line of the title and the longest name of an arm were cut off."""
    arms = [f"arm_of_pair_{k}" for k in range(count)]
    row = {"epoch": 40, "module": "h", "metric": "cka", "value": 0.5, "value_sd": 0.1, "num_images": 357}
    rows = pd.DataFrame([{**row, "reference": a, "arm": b} for a in arms for b in arms if a < b])
    figure = alignment_matrix(rows, arms, seeds=3)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    texts = [axes.title, *axes.get_xticklabels(), *axes.get_yticklabels()]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]  # type: ignore[no-untyped-call]
    width, height = canvas.get_width_height()
    assert min(min(box.x0, box.y0) for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= width
    assert max(box.y1 for box in boxes) <= height


@pytest.mark.parametrize(("panels", "columns"), [(1, 1), (4, 4), (5, 3), (9, 3), (10, 4)])
def test_rows_of_panels_have_equal_lengths(panels: int, columns: int) -> None:
    """Five panels were a row of four and one below it."""
    _, cells = grid(panels)
    assert len(cells) == panels
    assert cells[0].get_subplotspec().get_gridspec().ncols == columns  # type: ignore[union-attr]


def test_lines_of_the_page_end_at_no_hyphen_of_an_option_and_within_no_interval() -> None:
    """A telephone showed `--` at the end of a line and `compute` on the next one; copied text must not change."""
    text = "ce 0.70 [0.66, 0.73]; add --layers x&y to 1-2 --no-x"
    assert unbroken(text) == (
        'ce 0.70 [0.66,\N{NO-BREAK SPACE}0.73]; add <span class="whole">--layers</span> x&amp;y to 1-2'
        ' <span class="whole">--no-x</span>'
    )
    assert with_options("a, 1 000 <b>") == "a, 1 000 &lt;b&gt;"


def test_a_long_table_of_fits_is_folded(run: ReportRun) -> None:
    """405 rows of three seeds and all pairs stood above the losses."""
    assert not fits([run]).folded
    assert fits([run, replace(run, name="b"), replace(run, name="c")]).folded


def test_numbers_of_many_digits_are_short_in_the_settings_and_copied_in_full(run: ReportRun) -> None:
    """`1.3333333333333333` made the table wider than a telephone."""
    of_run = {**run.run.description["settings"], "ratio": [0.75, 4 / 3], "rate": 1e-05, "digest": "1.2a3456789012"}
    other = changed(run, description={**run.run.description, "settings": of_run})
    cells = {row[0].value: row[1] for row in settings([other]).rows}
    assert cells["ratio"][:2] == ("0.75, 1.3333333333333333", "0.75, 1.33333")
    assert (cells["rate"].text, cells["digest"].text) == ("1e-05", "1.2a3456789012")


def test_a_panel_of_a_sweep_names_its_metric_in_words() -> None:
    """The figure had the title `nccc:euclidean`, which is the spelling of the sweep's file."""
    rows = pd.DataFrame({"reference": [None], "num_images": [9.0]})
    shown: Any = SimpleNamespace(figure={"reference": "cl", "split": "test"})
    title = sweep_panel(shown, "nccc:euclidean", EPOCHS, rows).y.title
    assert title == "accuracy, nearest class centre (euclidean)"
    assert sweep_panel(shown, "cka", EPOCHS, rows.assign(reference="cl")).y.title == "CKA"
