"""The report's charts and tables for a run measured in several ways: all pairs, other samples, twins."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.report_parts import charts_of, copied, report_runs

from coupled.analysis.report.arm_charts import few_shot
from coupled.analysis.report.charts import Chart, numbers
from coupled.analysis.report.program import sections
from coupled.analysis.selections.looks import Looks
from coupled.analysis.selections.styles import NOISE
from coupled.analysis.tables import whole_encoder


@pytest.fixture(scope="module")
def charts(measured_run: Path) -> dict[str, Chart]:
    return charts_of(measured_run)


def test_every_line_shows_the_matching_rows_of_its_table(charts: dict[str, Chart], measured_run: Path) -> None:
    """By loss, split, layer, arm and epoch; floors with gaps; few-shot errors with their spread."""

    def table(name: str, where: str) -> pd.DataFrame:
        return pd.read_csv(measured_run / f"{name}.csv").query(f"arm == 'scl' and {where}")

    def line(chart: str, name: str, trace: str = "scl") -> dict[str, Any]:
        return next(each for each in charts[chart].variants[name]["data"] if each["name"] == trace)

    own = table("analysis/losses", "loss == 'dcl' and split == 'test'")
    assert line("losses", "dcl, test, τ = 1")["y"] == numbers(own["value"])
    trained = line("losses", "training loss of each arm")
    assert (trained["x"], trained["y"]) == ([1, 2, 3], numbers(table("epochs", "epoch > 0")["loss"]))
    for column in ("excess", "share"):
        reached = table("analysis/nscl_reached", "split == 'train'")[column]
        assert line("reached", f"{column}, train, τ = 1")["y"] == numbers(reached)
    floors = table(
        "analysis/bounds", "of == 'rsa' and module == 'z' and split == 'test' and bound == 'a_posteriori_sharp'"
    )
    assert line("alignment_bounds", "rsa, z, test images")["y"] == numbers(floors["measured"])
    sharp = floors["value"].where(floors["vacuous"] == "no")
    assert line("alignment_bounds", "rsa, z, test images", "scl · a posteriori sharp")["y"] == numbers(sharp)
    quality = table("analysis/quality", "module == 'h'")
    nccc = quality[quality["metric"] == "nccc"]
    assert line("quality", "nccc (euclidean), h, test")["y"] == numbers(nccc["value"])
    assert next(iter(charts["quality"].variants)) == "nccc (euclidean), h, test"
    reference = pd.read_csv(measured_run / "analysis/quality.csv").query("arm == 'cl' and module == 'h'")
    gaps = nccc["value"].to_numpy() - reference.query("metric == 'nccc'")["value"].to_numpy()
    scores = table("analysis/test_alignment", "module == 'h' and metric == 'rsa' and epoch in [0, 3]")
    points = line("alignment_accuracy", "nearest class centre, rsa")
    assert (points["x"], points["y"], points["mode"]) == (numbers(scores["value"]), numbers(gaps), "markers")
    assert points["text"] == ["epoch 0", "epoch 3"]
    assert not any(name.startswith("few_shot") for name in charts["quality"].variants)
    shots = quality[(quality["metric"] == "few_shot") & (quality["variant"] == "nccc") & (quality["epoch"] == 3)]
    shots = shots.dropna(subset=["value"])
    errors = line("few_shot", "nccc, all classes, h", "scl · epoch 3")
    assert errors["x"] == shots["shots"].tolist()
    assert errors["error_y"]["array"] == numbers(shots["std"])
    bounds = table(
        "analysis/bounds", "of == 'nccc_error' and module == 'h' and bound == 'documented_form' and epoch == 3"
    )
    bounds = bounds[bounds["task"] == "all"]
    assert line("few_shot", "nccc, all classes, h", "scl · documented form")["y"] == numbers(bounds["value"])
    shape = table("analysis/bounds", "bound == 'exponential_shape'")
    points, curve = (each for each in charts["weight_shape"].variants[""]["data"] if each["meta"]["arm"] == "scl")
    assert (points["mode"], points["y"], curve["y"]) == ("markers", numbers(shape["measured"]), numbers(shape["value"]))
    for chart, axes in (("loss_gap", ["yaxis"]), ("few_shot", ["yaxis"])):  # one number of shots
        layout = next(iter(charts[chart].variants.values()))["layout"]
        assert [axis for axis in ("xaxis", "yaxis") if layout[axis].get("type") == "log"] == axes


def test_the_order_of_rows_changes_no_figure(charts: dict[str, Chart], measured_run: Path, tmp_path: Path) -> None:
    """`--epochs 20` first and other epochs later appends rows out of order; lines must still follow the epochs."""
    run = copied(measured_run, tmp_path / "run")
    for path in (run / "epochs.csv", *(run / "analysis").glob("*.csv")):
        pd.read_csv(path, dtype=str)[::-1].to_csv(path, index=False)

    def drawn(charts: dict[str, Chart]) -> dict[tuple[str, ...], list[Any]]:
        return {
            (key, variant, trace["name"], trace["type"], str("x2" in trace.values() and trace["type"] == "scatter")): [
                trace.get(part) for part in ("x", "y", "z", "meta", "error_y")
            ]
            for key, chart in charts.items()
            for variant, figure in chart.variants.items()
            for trace in figure["data"]
        }

    assert drawn(charts_of(run)) == drawn(charts)


def test_errors_curves_and_bounds_equal_the_tables(charts: dict[str, Chart], measured_run: Path) -> None:
    """Few-shot errors, not accuracies; fitted curves by their formulas; one line for each bound."""
    found, tables = charts, measured_run / "analysis"
    quality = pd.read_csv(tables / "quality.csv").query("metric == 'few_shot' and arm == 'scl' and module == 'h'")
    line = next(t for t in found["few_shot"].variants["nccc, all classes, h"]["data"] if t["name"] == "scl · epoch 3")
    one = quality.query("epoch == 3 and variant == 'nccc' and shots == 1")["value"].item()
    assert line["y"][0] == pytest.approx(1 - one, rel=1e-6)
    fits = pd.read_csv(tables / "weight_gap_growth.csv").query("arm == 'scl'").set_index("model")
    lines = {t["name"]: t for t in found["growth"].variants["to cl"]["data"]}
    for model, sign in (("saturation", -1), ("exponential", 1)):
        slope, rate = fits.loc[model, "slope"], fits.loc[model, "rate"]
        expected = slope * sign * np.expm1(sign * rate * 3) / rate if rate else slope * 3
        assert lines[f"scl · {model}"]["y"][-1] == pytest.approx(expected, rel=1e-5)
    gaps = pd.read_csv(tables / "loss_gap.csv").query("split == 'train' and temperature == 1")
    lines = {t["name"]: t["y"] for t in found["loss_gap"].variants["train, τ = 1"]["data"]}
    for name, arm, column in (("ce", "ce", "gap"), ("bound of the batches", "cl", "bound")):
        assert lines[name] == pytest.approx(gaps[gaps["arm"] == arm][column].tolist(), rel=1e-6)
    assert lines["bound of the set"] == pytest.approx(gaps[gaps["arm"] == "cl"]["set_bound"].tolist(), rel=1e-6)


def test_errors_and_bounds_are_sorted_by_number_of_shots(measured_run: Path) -> None:
    """In whatever order they were measured; values of an earlier epoch are not shown."""
    (run,) = report_runs(measured_run)
    tables = {}
    for name in ("quality.csv", "bounds.csv"):
        table = run.table(name)
        one = table[table["shots"] == 1]
        more = one.assign(shots=5)
        tables[name] = pd.concat([one.query("epoch == 3").assign(epoch=0), more, one])
    drawn = few_shot([replace(run, tables=tables)], Looks([run]))
    found = drawn.variants["nccc, all classes, h"]["data"]
    assert [line["x"] for line in found] == [[1, 5]] * 12  # an error and two bounds of each arm
    assert "standard deviation over ten draws of the labelled images." in drawn.caption


def test_bands_of_few_shot_errors_are_those_of_the_seeds(measured_run: Path) -> None:
    """The caption would name another spread than the one that is drawn."""
    (run,) = report_runs(measured_run)
    quality = run.table("quality.csv").assign(value_sd=0.1)
    drawn = few_shot([replace(run, seeds=3, tables={"quality.csv": quality})], Looks([run]))
    line = next(each for each in drawn.variants["nccc, all classes, h"]["data"] if each.get("name"))
    assert "n = 3" in line["name"]
    assert "standard deviation over seeds." in drawn.caption


def test_each_pair_of_arms_has_its_line_and_row(charts: dict[str, Chart], measured_run: Path, tmp_path: Path) -> None:
    """With `--compare all`, 45 lines of ten arms covered each other; the first panels show what the sentence says."""
    run = copied(measured_run, tmp_path / "run")
    for name, column in (("weight_gap", "gap"), ("test_alignment", "value")):
        path = run / f"analysis/{name}.csv"
        table = pd.read_csv(path)
        other = table[table["arm"] == "ce"].assign(reference="nscl", **{column: 0.123})
        pd.concat([table, other]).to_csv(path, index=False)
    parts = {part.key: part for section in sections(report_runs(run)) for part in section["parts"]}
    assert parts["headline"] == charts["headline"]
    assert next(iter(parts["alignment"].variants)) == "cka, h, test images, to cl"
    to_nscl = parts["alignment"].variants["cka, h, test images, to nscl"]["data"]
    assert [(line["name"], {*line["y"]}) for line in to_nscl] == [("ce", {0.123})]
    same = charts["alignment_accuracy"].variants["nearest class centre, rsa"]
    assert parts["alignment_accuracy"].variants["nearest class centre, rsa, to cl"] == same
    assert parts["last"].caption == "Reference: cl."
    (other,) = parts["pairs"].rows
    assert [each.value for each in other[:4]] == ["ce", *["0.123"] * 3]
    assert parts["pairs"].caption == "Reference: nscl."
    assert parts["pairs"].folded
    rows = {row[0].value: [each.value for each in row[1:4]] for row in parts["last"].rows}
    gaps = whole_encoder(pd.read_csv(measured_run / "analysis/weight_gap.csv"), "mean").query(
        "arm == 'ce' and epoch == 3"
    )
    assert float(rows["ce"][0]) == pytest.approx(gaps["gap"].item(), rel=1e-12)
    assert "0.123" not in rows["ce"]


def test_rows_of_smaller_samples_other_splits_or_earlier_calls_hide_no_values(
    charts: dict[str, Chart], measured_run: Path, tmp_path: Path
) -> None:
    """Collapse of another split, and other tables with fewer images or epochs."""
    run = copied(measured_run, tmp_path / "run")
    expected = {key: chart.variants for key, chart in charts.items()}
    changes: dict[str, dict[str, Any]] = {
        "collapse": {"split": "train", "num_images": 1440},
        "quality": {"num_train_images": 10, "value": 0.5},
        "losses": {"num_images": 10, "value": 9.0},
        "loss_gap": {"num_images": 10, "gap": 9.0},
        "nscl_reached": {"num_images": 10, "excess": 9.0},
        "bounds": {
            "num_images": 2,
            "value": 9.0,
            "fit_epochs": lambda table: table["fit_epochs"].where(table["fit_epochs"].isna(), "3"),
        },
        "test_alignment": {"num_images": "10", "value": "0.1"},
    }
    for name, changed in changes.items():
        path = run / f"analysis/{name}.csv"
        table = pd.read_csv(path, dtype=str)
        more = table[table["num_train_images"].notna()] if name == "quality" else table
        pd.concat([table, more.assign(**changed)])[table.columns].to_csv(path, index=False)
    found = {key: chart.variants for key, chart in charts_of(run).items()}
    same = ("quality", "few_shot", "losses", "loss_gap", "reached", "alignment", "headline")
    for key in (*same, "alignment_bounds", "weight_shape"):
        assert found[key] == expected[key]
    assert next(iter(found["alignment"])) == "cka, h, test images"
    for key in ("collapse", "spectra"):
        train = json.loads(json.dumps(expected[key]).replace("test", "train"))
        assert found[key] == expected[key] | train


def test_the_noise_floor_is_between_a_twin_and_its_sibling_only(measured_run: Path, tmp_path: Path) -> None:
    run = copied(measured_run, tmp_path / "run")
    about: dict[str, Any] = json.loads((run / "run.json").read_text())
    about["settings"]["arms"]["again"] = about["settings"]["arms"]["cl"] | {"twin": "cl"}
    (run / "run.json").write_text(json.dumps(about))
    (one,) = report_runs(run)
    looks = Looks([one])
    assert [one.twins_of(reference) for reference in ("", "cl", "nscl")] == [["again"], ["again"], []]
    floor = looks.series(one, "again", [0], [0], reference="cl")
    assert (floor.label, floor.style.color) == ("again · noise floor", NOISE)
    assert looks.series(one, "again", [0], [0], reference="nscl").style.color == looks.colours["again"]
