"""Every figure of several seeds shows their mean and says so; none shows one seed in silence."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from support.figure_tables import ARMS, OTHERS, value, write_tables

from coupled.analysis.figures import FIGURES
from coupled.analysis.plots.experiment_tables import experiment_tables
from coupled.analysis.plots.option_figures import options
from coupled.analysis.run import open_run
from coupled.config.schema import from_resolved
from coupled.storage.run_description import write_run_json

CHANGED = ("value", "gap", "angle", "accuracy", "excess", "confidence")  # columns
FACTORS = (1.0, 0.9, 0.7)
OPTIONS = {"mine": 0.1, "nscl": 0.2, "ce": 0.3}  # temperatures of arms of one objective
EVERY: dict[str, Callable[..., Figure]] = {**FIGURES, "options": options}
NO_BANDS = ("gap_alignment", "alignment_accuracy", "layers_alignment", "layers_gap")  # paths and maps


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three seeds; each value of a seed is that of the first times a factor."""
    folder = tmp_path_factory.mktemp("seeds")
    write_tables(folder / "tables")
    arms: dict[str, Any] = {**ARMS, **{arm: {"objective": "nscl", "temperature": t} for arm, t in OPTIONS.items()}}
    found = []
    for seed, factor in enumerate(FACTORS):
        run = folder / f"seed-{seed}"
        run.mkdir()
        given = {"name": f"x_seed-{seed}", "seed": seed, "dataset": {"name": "digits"}, "arms": arms}
        settings = from_resolved(given).resolved()
        write_run_json(run, {"name": given["name"], "settings": settings, "settings_sha256": 64 * "0", "dataset": {}})
        shutil.copytree(folder / "tables", run / "analysis")
        for path in (run / "analysis").glob("*.csv"):
            rows = pd.read_csv(path)
            for column in {*CHANGED} & {*rows}:
                rows[column] = rows[column] * factor
            rows.to_csv(path, index=False)
        found.append(run)
    return found


def drawn(figure: Figure) -> list[Any]:
    """All numbers of a figure."""
    numbers: list[Any] = []
    for axes in figure.axes:
        numbers += [np.ma.filled(image.get_array(), np.nan) for image in axes.images]
        numbers += [np.asarray(line.get_xydata(), float) for line in axes.lines]
        for each in axes.collections:
            numbers += [*(path.vertices for path in each.get_paths()), np.ma.filled(each.get_offsets(), np.nan)]
        numbers += [np.array([patch.get_width()]) for patch in axes.patches]  # type: ignore[attr-defined]
    return numbers


def texts(figure: Figure) -> str:
    """Titles and labels of a figure."""
    titles = [legend.get_title().get_text() for legend in figure.legends]
    labels = [text for axes in figure.axes for text in (axes.get_title(), axes.get_ylabel(), axes.get_xlabel())]
    return " ".join([figure.get_suptitle(), *titles, *labels]).replace("\n", " ")


@pytest.mark.parametrize("name", EVERY)
def test_a_figure_of_seeds_shows_all_of_them_and_says_so(seeds: list[Path], name: str) -> None:
    """A figure of the first seed alone would change with the order of the runs, and its reader would not know."""
    runs = [open_run(path) for path in seeds]
    first, second = (EVERY[name](experiment_tables(order, "cl")) for order in (runs, [*runs[1:], runs[0]]))
    numbers, again = drawn(first), drawn(second)
    assert len(numbers) == len(again) > 0
    for one, other in zip(numbers, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    said = texts(first)
    assert "over n = 3 seeds" in said
    assert ("standard deviation" in said) == (name not in NO_BANDS[:2])


def line_of(figure: Figure, panel: int, arm: str) -> tuple[Any, Any]:
    """A line and the ends of its band."""
    axes = figure.axes[panel]
    line = next(each for each in axes.lines if str(each.get_label()).startswith(arm))
    colour = str(line.get_color())
    shades = {to_hex(each.get_facecolor()[0][:3]).upper(): each for each in axes.collections}
    return np.asarray(line.get_ydata(), float), shades[colour.upper()].get_paths()[0].vertices[:, 1]


def test_the_band_of_a_barrier_is_the_deviation_of_the_heights(seeds: list[Path]) -> None:
    """The height is the largest value along a line: no mean table has its deviation."""
    figure = EVERY["barrier"](experiment_tables([open_run(path) for path in seeds], "cl"))
    y, band = line_of(figure, 1, "ce")
    heights = np.outer([value(epoch, "ce") for epoch in (0, 1, 3)], FACTORS)
    np.testing.assert_allclose(y, heights.mean(axis=1), rtol=1e-9)
    assert band.max() == pytest.approx(heights[-1].mean() + heights[-1].std(ddof=1), rel=1e-9)


def test_errors_on_corruptions_are_means_with_deviations(seeds: list[Path]) -> None:
    """On the left a band, on the right a bar for each corruption and for their mean."""
    figure = EVERY["corruption_errors"](experiment_tables([open_run(path) for path in seeds], "cl"))
    y, band = line_of(figure, 0, "ce")
    errors = np.outer(np.arange(1, 6) / 10, FACTORS)
    np.testing.assert_allclose(y, errors.mean(axis=1), rtol=1e-9)
    assert band.max() == pytest.approx((errors.mean(axis=1) + errors.std(axis=1, ddof=1)).max(), rel=1e-9)
    bars = [bar for each in figure.axes[1].collections for bar in each.get_segments()]  # type: ignore[attr-defined]
    assert len(bars) == 2 * len(OTHERS)
    means = errors.mean(axis=0)
    np.testing.assert_allclose(bars[0][:, 0], means.mean() + np.array([-1, 1]) * means.std(ddof=1), rtol=1e-9)


def test_a_matrix_of_seeds_has_the_deviation_in_its_cells(seeds: list[Path]) -> None:
    """The diagonal is 1 by definition and has none."""
    figure = EVERY["matrix"](experiment_tables([open_run(path) for path in seeds], "cl"))
    shown = {text.get_text() for text in figure.axes[0].texts}
    mean, deviation = np.mean(FACTORS) * 0.3, np.std(FACTORS, ddof=1) * 0.3
    assert {"1.00", f"{mean:.2f}\n±{deviation:.2f}".replace("0.", ".")} <= shown


def test_the_band_half_way_is_the_deviation_of_the_differences(seeds: list[Path], tmp_path: Path) -> None:
    """Deviations of the three positions do not give that of their difference."""
    runs = []
    for seed, path in enumerate(seeds):
        run = Path(shutil.copytree(path, tmp_path / path.name))
        rows = pd.read_csv(run / "analysis/merge.csv")
        rows.loc[rows["position"] == 0.5, "value"] = 0.1 * seed + rows["epoch"] / 100
        rows.to_csv(run / "analysis/merge.csv", index=False)
        runs.append(open_run(run))
    y, band = line_of(EVERY["merging"](experiment_tables(runs, "cl")), 1, "ce")
    ends = {epoch: value(epoch, "ce", 0.1) for epoch in (0, 1, 3)}
    each = np.array([[0.1 * s + e / 100 - f * ends[e] / 2 for s, f in enumerate(FACTORS)] for e in (0, 1, 3)])
    np.testing.assert_allclose(y, each.mean(axis=1), rtol=1e-9)
    assert band.max() == pytest.approx((each.mean(axis=1) + each.std(axis=1, ddof=1)).max(), rel=1e-9)
