"""Runs of several seeds are one line with its band, and different runs are side by side, in figures and report."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from support.report_parts import charts_of, report_runs

from coupled.analysis.figures import main
from coupled.analysis.plots.experiment_tables import experiment_tables
from coupled.analysis.plots.figure_tables import FigureTables
from coupled.analysis.plots.pair_figures import drift
from coupled.analysis.plots.panel_figures import draw_panels, panels_figure
from coupled.analysis.report.charts import figure as plotly_figure
from coupled.analysis.report.last_values import last_values, last_values_of_seeds
from coupled.analysis.report.program import sections
from coupled.analysis.report.tables import ReportRun, experiments
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.selections import bounds, pairs
from coupled.analysis.selections.differences import differences
from coupled.analysis.selections.looks import Looks
from coupled.analysis.selections.pairs import add_pairs
from coupled.analysis.selections.panels import Axis, Floor, Panel, Series
from coupled.analysis.selections.seeds import average, by_seed, common_name, run_names
from coupled.analysis.selections.styles import Style, arm_styles
from coupled.analysis.several_runs import open_runs, results_folder, run_labels
from coupled.analysis.weights.growth import growth
from coupled.config.schema import from_resolved
from coupled.storage.run_description import write_run_json

ARMS = {"cl": {"objective": "dcl"}, "nscl": {"objective": "nscl"}, "ce": {"objective": "cross_entropy"}}
SEEDS = (0, 1, 2)


def cka(arm: str, epoch: int, seed: int) -> float:
    """Near 1, so that mean plus standard deviation is above it."""
    return 1 - epoch * (0.001 + 0.02 * seed) * (1 + list(ARMS).index(arm))


def make(folder: Path, name: str, seed: int, **settings: Any) -> Path:
    """A run with weight_gap.csv and test_alignment.csv; an interval of its own, which is not shown beside others."""
    run = folder / name
    (run / "analysis").mkdir(parents=True)
    given = {"name": name, "seed": seed, "dataset": {"name": "digits"}, "arms": ARMS, **settings}
    resolved = from_resolved(given).resolved()
    write_run_json(run, {"name": name, "settings": resolved, "settings_sha256": 64 * "0", "dataset": {}})
    gaps: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for epoch in (0, 1, 2 + (seed == 2)):  # one seed was measured at another epoch
        for arm in ("nscl", "ce"):
            value = cka(arm, epoch, seed)
            gaps.append({"epoch": epoch, "reference": "cl", "arm": arm, "aggregate": "mean", "gap": 1 - value})
            row = {"epoch": epoch, "split": "test", "reference": "cl", "arm": arm, "module": "h", "metric": "cka"}
            scores.append(row | {"value": value, "ci_low": 0.1, "ci_high": 0.2, "num_images": 357})
    for table, rows in (("weight_gap", gaps), ("test_alignment", scores)):
        columns = SCHEMAS[f"{table}.csv"].columns
        pd.DataFrame(rows).reindex(columns=list(columns)).to_csv(run / "analysis" / f"{table}.csv", index=False)
    return run


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("seeds")
    return [make(folder, f"few_seed-{seed}", seed) for seed in SEEDS]


def test_means_and_deviations_equal_a_loop_over_the_rows_that_all_runs_have() -> None:
    """A mean over other seeds at some epochs would jump; digests differ between seeds and are no part of the key."""
    generator = np.random.default_rng(0)
    tables = []
    for seed in SEEDS:
        rows = pd.DataFrame({"epoch": [0, 1, 5 + seed], "split": "test", "arm": "a", "temperature": 0.5})
        rows = rows.assign(gap=generator.random(3), arm_digest=f"d{seed}", num_images=9, tightest=None)
        tables.append(rows.assign(text=["same", f"{seed}", "x"], vacuous=["no", "yes" if seed else "no", "no"]))
    found = average(tables, "loss_gap.csv")
    assert found["epoch"].tolist() == [0, 1]
    for place in (0, 1):
        values = [table["gap"][place] for table in tables]
        mean = sum(values) / 3
        deviation = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
        assert found["gap"][place] == pytest.approx(mean, rel=1e-12)
        assert found["gap_sd"][place] == pytest.approx(deviation, rel=1e-12)
    assert found["text"].fillna("").tolist() == ["same", ""]
    assert found["vacuous"].tolist() == ["no", "yes"]
    assert "arm_digest" not in found


def test_settings_say_which_runs_are_seeds_of_one_experiment_and_what_others_differ_in() -> None:
    """Name and seed are left out; everything else separates runs."""
    one = {"name": "a", "seed": 0, "temperature": 0.5, "arms": ARMS}
    other = {**one, "temperature": 0.1, "arms": {**ARMS, "more": {"objective": "dcl"}}}
    assert by_seed([one, other, {**one, "name": "b", "seed": 7}]) == [[0, 2], [1]]
    assert differences({"x": one, "y": {**one, "name": "b", "seed": 7}}) == ""
    expected = "settings that differ (x | y): further arms none | more (dcl); temperature 0.5 | 0.1"
    assert differences({"x": one, "y": other}) == expected
    assert (
        differences({"x": {"threads": None}, "y": {"threads": 1}}) == "settings that differ (x | y): threads null | 1"
    )


def test_images_and_objectives_are_the_first_settings_that_differ() -> None:
    """Among seventy settings that differ, five warm-up epochs and threads were named and the images were not."""
    arms = {"cl": {"objective": "dcl", "temperature": 0.5}, "b": {"objective": "supcon", "temperature": 0.5}}
    one = {
        "num_threads": 1,
        "epochs": 9,
        "temperature": 0.5,
        "dataset": {"name": "digits", "num_workers": 1},
        "arms": arms,
    }
    warm = {name: {**arm, "temperature": 1.0} for name, arm in arms.items()}
    many = {f"arm{k}": {"objective": "dcl", "temperature": 1.0} for k in range(6)}
    other = {"num_threads": 2, "epochs": 8, "temperature": 1.0, "dataset": {"name": "cifar10", "num_workers": 2}}
    other["arms"] = {"cl": warm["cl"], "dcl": many["arm0"], **many}
    assert differences({"x": one, "y": other}) == (
        "settings that differ (x | y): dataset.name digits | cifar10;"
        " further arms b (supcon) | dcl, arm0 (dcl), arm1 (dcl), arm2 (dcl), and 3 more; epochs 9 | 8;"
        " temperature 0.5 | 1.0"
    )
    other["arms"] = {**warm, "b": {"objective": "nscl", "temperature": 0.7}}
    text = differences({"x": one, "y": other})
    assert (
        "cifar10; arms.b.objective supcon | nscl; epochs 9 | 8; temperature 0.5 | 1.0; arms.b.temperature 0.5 | 0.7"
        in text
    )
    long = [["a" * 60, end] for end in "xy"]
    assert differences({"x": {"list": long[0]}, "y": {"list": long[1]}}).count("aaa...") == 2  # told apart, shown short
    six = [{f"k{k}": value for k in range(6)} for value in (0, 1)]
    assert differences({"x": six[0], "y": six[1]}).endswith("k4 0 | 1; and 1 more")


def test_names_of_runs_are_unique_and_those_of_experiments_short() -> None:
    """The points of all sweeps are named after their seeds; a legend has no room for whole paths."""
    folders = [Path(f"/runs/{sweep}/seed={seed}") for sweep in ("warm", "cold") for seed in (0, 1)]
    names = run_names(["seed-0", "seed-1", "seed-0", "seed-1"], folders)
    assert names == ["warm/seed=0", "warm/seed=1", "cold/seed=0", "cold/seed=1"]
    assert common_name(names[:2], folders[:2]) == "warm"
    assert common_name(["t-0_1_seed-3", "t-0_1_seed-4"], folders) == "t-0_1"
    assert common_name(["seed-0", "seed-1"], folders) == "warm"
    assert common_name(["alone_3"], folders) == "alone_3"


def test_seeds_are_one_line_with_their_deviation_in_figure_and_report(seeds: list[Path]) -> None:
    """At the epochs of all seeds, with n in the label; the intervals of single runs are not those of the mean."""
    figure = drift(experiment_tables([open_run(path) for path in seeds], "cl"))
    data = charts_of(*seeds)["headline"].variants[""]["data"]
    label = "nscl · ± sd, n = 3"
    values = np.array([[cka("nscl", epoch, seed) for seed in SEEDS] for epoch in (0, 1)])
    low, high = (values.mean(axis=1) + sign * values.std(axis=1, ddof=1) for sign in (-1, 1))
    line = next(each for each in figure.axes[1].lines if each.get_label() == label)
    np.testing.assert_allclose(line.get_xydata(), np.stack([[0, 1], values.mean(axis=1)], axis=1))
    shade = figure.axes[1].collections[0].get_paths()[0].vertices
    assert {*np.round(shade[:, 1], 12)} == {*np.round([*low, *high], 12)}
    (trace,) = (each for each in data if each.get("name") == label and each.get("xaxis") == "x2")
    assert trace["y"] == pytest.approx(values.mean(axis=1), rel=1e-6)
    lower, upper = (
        each for each in data if each.get("legendgroup") == label and "name" not in each and "xaxis" in each
    )
    assert lower["y"] == pytest.approx(low, rel=1e-6)
    assert upper["y"] == pytest.approx(high, rel=1e-6)
    assert upper["fill"] == "tonexty"
    assert "error_y" not in trace
    text = "n = 357 test images; mean and one standard deviation over n = 3 seeds"
    assert figure.legends[0].get_title().get_text().replace("\n", " ") == text


@pytest.fixture
def gaps_of_seeds(seeds: list[Path]) -> list[ReportRun]:
    """Each seed's gap grows exponentially with a rate of its own, and its fits are exact."""
    runs = []
    for rate, run in zip((0.1, 0.5, 1.0), report_runs(*seeds), strict=True):
        t = np.arange(6.0)
        rows = pd.DataFrame({"epoch": t, "reference": "cl", "arm": "nscl", "aggregate": "global", "module": np.nan})
        rows = rows.assign(gap=(np.exp(rate * t) - 1) / rate, tensor=np.nan)
        runs.append(replace(run, tables={"weight_gap.csv": rows, "weight_gap_growth.csv": growth(rows)}))
    return runs


def test_the_fitted_curve_of_several_seeds_is_the_mean_of_their_curves(gaps_of_seeds: list[ReportRun]) -> None:
    """The curve of mean parameters is no fit to any of the points: at epoch 5 it is 20 % below their mean."""
    panel_runs = experiments(gaps_of_seeds)
    (panel,) = bounds.growth(panel_runs, Looks(panel_runs))
    curve = next(each for each in panel.series if "exponential" in each.label)
    expected = np.array([[(np.exp(r * t) - 1) / r for r in (0.1, 0.5, 1.0)] for t in curve.x])
    np.testing.assert_allclose(curve.y, expected.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(curve.high, expected.mean(axis=1) + expected.std(axis=1, ddof=1), rtol=1e-5)
    assert curve.label == "nscl · exponential · ± sd, n = 3"
    assert panel.series[0].low is not None
    assert panel.series[0].y[-1] == pytest.approx(expected[-1].mean(), rel=1e-12)
    mean = np.mean([0.1, 0.5, 1.0])
    assert (np.exp(5 * mean) - 1) / mean < 0.8 * expected[-1].mean()


def test_the_angle_of_several_seeds_is_the_mean_of_their_angles(seeds: list[Path]) -> None:
    """The arccos of the mean CKA is a smaller angle."""
    tables = experiment_tables([open_run(path) for path in seeds], "cl")
    panel = pairs.angles(tables.sources, tables.looks)[-1]
    line = next(each for each in panel.series if each.arm == "ce")
    degrees = np.degrees(np.arccos([cka("ce", 1, seed) for seed in SEEDS]))
    assert line.y[1] == pytest.approx(degrees.mean(), rel=1e-12)
    assert line.high is not None
    assert line.high[1] == pytest.approx(degrees.mean() + degrees.std(ddof=1), rel=1e-12)


def test_no_axis_shows_a_cka_above_1(seeds: list[Path]) -> None:
    """The deviation reaches above 1; a reader would take the axis for that of another score."""
    figure = drift(experiment_tables([open_run(path) for path in seeds], "cl"))
    assert figure.axes[1].get_ylim()[1] < 1.005
    assert figure.axes[0].get_ylim()[0] == 0
    layout = charts_of(*seeds)["headline"].variants[""]["layout"]
    assert layout["yaxis2"]["autorangeoptions"] == {"clipmin": 0.0, "clipmax": 1.0}


def test_different_runs_are_side_by_side_with_the_settings_that_differ(seeds: list[Path], tmp_path: Path) -> None:
    """Labels are run:arm in both; one line names the settings."""
    other = make(tmp_path, "cold", 0, temperature=0.1)
    tables = experiment_tables([open_run(path) for path in (*seeds, other)], "cl")
    figure, names = drift(tables), {"few:nscl · ± sd, n = 3", "few:ce · ± sd, n = 3", "cold:nscl", "cold:ce"}
    assert {str(each.get_label()) for each in figure.axes[1].lines} == names
    data = charts_of(*seeds, other)["headline"].variants[""]["data"]
    assert {each["name"] for each in data if "name" in each} == names
    differ = "settings that differ (few | cold): temperature 0.5 | 0.1"
    assert tables.note.startswith(differ)
    (text,) = (part for part in sections(report_runs(*seeds, other))[0]["parts"] if part.key == "sentence")
    assert text.note.startswith("S" + differ[1:])
    assert [each.partition(":")[0] for each in text.sentences] == ["few", "cold"]
    assert [run.seeds for run in experiments(report_runs(*seeds, other))] == [3, 1]


def test_the_noise_floors_of_several_runs_are_lines_of_their_own(tmp_path: Path) -> None:
    """One band over both would be the floor of neither."""
    rows = pd.DataFrame({"epoch": [0, 1], "reference": "cl", "arm": "again", "aggregate": "mean", "gap": [0.0, 0.1]})
    styles = arm_styles(["cl", "again"])
    one = FigureTables(tmp_path, "cl", styles, ["again"], name="one")
    two = one._replace(name="two")
    panels = [Panel(("gap",), "", Axis("epoch"), Axis("gap")) for _ in range(2)]
    for panel, sources in zip(panels, ([one], [one, two]), strict=True):
        for source in sources:
            add_pairs(panel, source, Looks(sources), rows, "gap", equal=0.0)
    assert panels[0].floor == ("noise floor (cl's twin)", [0, 1], [0, 0], [0, 0.1])
    assert panels[0].series == []
    assert panels[1].floor is None
    assert [each.label for each in panels[1].series] == ["one:again · noise floor", "two:again · noise floor"]


def test_a_sweep_folder_stands_for_its_runs(
    seeds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its points in the order of the sweep; a point without a run is counted."""
    folder = seeds[0].parent
    names = [path.name for path in reversed(seeds)]
    (folder / "sweep.json").write_text(json.dumps({"points": {name: {} for name in [*names, "not_yet"]}}))
    assert [run.path.name for run in open_runs([folder])] == names
    assert "3 of 4 points have a run" in capsys.readouterr().out
    monkeypatch.setattr("coupled.analysis.figures.FIGURES", {"drift": drift})
    assert main(["--run-dir", str(folder)]) == 0
    assert {path.name for path in (folder / "analysis/figures").iterdir()} == {"drift.png", "drift.pdf"}
    assert main(["--run-dir", str(folder), "--output", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"drift.png", "drift.pdf"}
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match=r"sweep\.json: not a valid description of a sweep"):
        open_runs([tmp_path])


def test_points_of_a_sweep_are_labelled_with_the_keys_that_vary(tmp_path: Path) -> None:
    """A key with one value says nothing, and in long names it hid the seed."""
    points = [{"epochs": 9, "t": t, "seed": seed} for t in (0.1, 1.0) for seed in (0, 1)]
    values = {f"epochs=9,t={each['t']},seed={each['seed']}": each for each in points}
    for place, (name, each) in enumerate(values.items()):
        make(tmp_path / "grid", f"point{place}", each["seed"]).rename(tmp_path / "grid" / name)
    runs = [open_run(tmp_path / "grid" / name) for name in values]
    before = run_labels(runs)
    assert before == ["point0", "point1", "point2", "point3"]  # no sweep.json: the names of the runs
    (tmp_path / "grid/sweep.json").write_text(json.dumps({"points": values}))
    assert run_labels(runs) == ["t=0.1,seed=0", "t=0.1,seed=1", "t=1.0,seed=0", "t=1.0,seed=1"]
    assert common_name(run_labels(runs)[:2], [run.path for run in runs[:2]]) == "t=0.1"
    alone = open_run(make(tmp_path, "alone", 0))
    assert run_labels([runs[3], alone]) == ["grid/t=1.0,seed=1", "alone"]
    assert run_labels(runs[:1]) == ["grid/t=0.1,seed=0"]
    (tmp_path / "grid/sweep.json").write_text("{")
    assert run_labels(runs) == before
    assert results_folder(runs[:1]) == runs[0].tables
    assert results_folder(runs) == tmp_path / "grid/analysis"
    assert results_folder([*runs, alone]) == tmp_path / "analysis"
    object.__setattr__(alone, "path", Path("/elsewhere"))
    with pytest.raises(ValueError, match=r"--output: the 2 runs have no folder in common; pass --output"):
        results_folder([runs[0], alone])


def test_the_last_values_of_seeds_are_mean_and_deviation_with_a_row_for_each_seed_below(seeds: list[Path]) -> None:
    """Forty-eight rows of three seeds had no mean."""
    runs = report_runs(*seeds)
    table, of_seeds = last_values(experiments(runs)), last_values_of_seeds(runs)
    assert table.caption == "Reference: cl. Mean ± standard deviation over seeds: n = 3."
    values = [cka("nscl", 1, seed) for seed in SEEDS]  # the last epoch that all have
    row = next(row for row in table.rows if row[0].value == "nscl")
    mean, spread = np.mean(values), np.std(values, ddof=1)
    assert row[2].text == f"{mean:#.4g} ± {spread:.4f}" == "0.9580 ± 0.0400"
    assert [*map(float, row[2].value.split(" ± "))] == pytest.approx([mean, spread], rel=1e-12)
    assert (table.columns[0], row[2].number, of_seeds.folded) == ("arm", True, True)
    found = {row[0].text: row[3].value for row in of_seeds.rows if row[1].value == "nscl"}
    assert found == {f"few_seed-{seed}": repr(cka("nscl", 2 + (seed == 2), seed)) for seed in SEEDS}
    assert last_values_of_seeds(runs[:1]).rows == []
    assert last_values(runs[:1]).caption == "Reference: cl."


def test_the_caption_of_the_alignment_names_its_lines(seeds: list[Path], tmp_path: Path) -> None:
    """Bars without a word on what they are; a command for intervals that are there."""
    assert charts_of(*seeds)["alignment"].caption.startswith("One line per arm: its similarity to the reference arm. n")
    run = make(tmp_path, "two", 0)
    path = run / "analysis/test_alignment.csv"
    table = pd.read_csv(path)
    pd.concat([table, table[table["arm"] == "ce"].assign(reference="nscl")]).to_csv(path, index=False)
    assert charts_of(run)["alignment"].caption.endswith("one seed; bars: 95 % intervals over images.")
    pd.read_csv(path).assign(ci_low=None, ci_high=None).to_csv(path, index=False)
    assert "reference arm. coupled alignment --confidence adds" in charts_of(run)["alignment"].caption


def test_the_deviation_of_a_single_epoch_is_a_bar() -> None:
    """An area over one point is not visible, although the legend names it."""
    series = Series("a", "a", Style("#0072B2", "-", "o"), [20.0], [0.5], [0.4], [0.7], seeds=3)
    panel = Panel(("a",), "a", Axis("epoch", whole=True), Axis("score"), series=[series])
    (trace,) = plotly_figure(panel)["data"]
    assert (trace["error_y"]["array"], trace["error_y"]["arrayminus"]) == ([0.2], [0.1])
    axes = Figure().subplots()
    draw_panels([axes], [panel])
    assert [each.tolist() for each in axes.collections[0].get_segments()] == [[[20.0, 0.4], [20.0, 0.7]]]  # type: ignore[attr-defined]
    assert axes.get_xticks().tolist() == plotly_figure(panel)["layout"]["xaxis"]["tickvals"] == [20.0]


def test_the_arms_of_a_single_epoch_are_side_by_side_with_their_true_numbers(tmp_path: Path) -> None:
    """Bars at one place cover each other; a table of the drawn numbers must still say epoch 20."""
    series = [
        Series(name, name, Style(colour, dash, marker), [20.0], [0.5], [0.4], [0.7], kind=kind)
        for name, colour, dash, marker, kind in (
            ("a", "#0072B2", "-", "o", "line"),
            ("b", "#D55E00", "--", "s", "points"),
            ("c", "#009E73", ":", "^", "curve"),
        )
    ]  # fmt: skip
    floor = Floor("floor", [20.0], [0.0], [0.1])
    panel = Panel(("a",), "a", Axis("epoch", whole=True), Axis("score"), series=series, floor=floor)
    drawn = plotly_figure(panel)
    assert drawn["layout"]["scattermode"] == "group"
    assert [each["x"] for each in drawn["data"]] == [[19.5, 20.5], [19.5, 20.5], [20.0], [20.0], [20.0]]
    assert [each["mode"] for each in drawn["data"][2:]] == ["lines+markers", "markers", "markers"]
    (axes,) = panels_figure([panel], FigureTables(tmp_path, "a", {}, [])).axes
    axes.figure.canvas.draw()
    middles = [
        axes.transData.inverted().transform(bar.get_transform().transform(bar.get_segments()[0]))[:, 0].mean()
        for bar in axes.collections if hasattr(bar, "get_segments") and len(bar.get_segments())
    ]  # fmt: skip
    assert np.diff(sorted(middles)).min() > 0.1
    assert sum(middles) == pytest.approx(60)
    assert axes.lines[0].get_xydata().tolist() == [[20.0, 0.5]]
    two = replace(panel, series=[replace(each, x=[19.0, 20.0], y=[0.5, 0.5], low=None) for each in series], floor=None)
    assert "scattermode" not in plotly_figure(two)["layout"]


def test_panels_that_share_an_axis_show_all_their_values(tmp_path: Path) -> None:
    """The limits of the first panel hid the values of the others."""
    panels = [
        Panel((name,), name, Axis("epoch", whole=True), Axis("degrees", low=0.0, zero=True),
              series=[Series("a", "a", Style("#0072B2", "-", "o"), [0.0, 1.0], [0.0, top])])
        for name, top in (("one", 15.0), ("two", 60.0))
    ]  # fmt: skip
    figure = panels_figure(panels, FigureTables(tmp_path, "a", {}, []), sharey=True)
    assert [axes.get_ylim()[0] for axes in figure.axes] == [0, 0]
    assert all(axes.get_ylim()[1] > 60 for axes in figure.axes)
