"""report: the content of the page, the list of missing tables, and empty, partial and several runs."""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from support.report_parts import changed, charts_of, copied, report_runs

from coupled.analysis.report import program as report
from coupled.analysis.report import tables
from coupled.analysis.report.charts import Chart, numbers
from coupled.analysis.report.last_values import last_values
from coupled.analysis.report.missing import COMPARING, OPTIONS, PROGRAMS, missing_tables, partial_tables
from coupled.analysis.report.page_tables import (
    Cell,
    cell,
    correlations,
    description_facts,
    fits,
    flatten,
    settings,
    to_complete,
    to_compute,
    verify_result,
)
from coupled.analysis.report.page_tables import about as about_table
from coupled.analysis.report.program import main, page
from coupled.analysis.report.tables import ReportRun
from coupled.analysis.run import open_run
from coupled.analysis.selections.layers import layer_sort_key
from coupled.analysis.tables import whole_encoder

NewRun = Callable[..., Path]
CHARTS = {
    *("headline", "alignment", "alignment_bounds", "alignment_layers", "cross_layer", "layers", "growth"),
    *(
        "losses",
        "loss_gap",
        "reached",
        "quality",
        "alignment_accuracy",
        "few_shot",
        "throughput",
        "collapse",
        "spectra",
        "steps",
        "weight_shape",
    ),
}


@pytest.fixture(scope="module")
def charts(measured_run: Path) -> dict[str, Chart]:
    return charts_of(measured_run)


def test_every_chart_is_there_and_every_trace_belongs_to_an_arm(charts: dict[str, Chart]) -> None:
    """The switch of an arm hides the traces whose meta names it."""
    found = charts
    assert set(found) == CHARTS
    for chart in found.values():
        for figure in chart.variants.values():
            assert figure["data"]
            for trace in figure["data"]:
                assert trace.get("meta", {"arm": "cl"})["arm"] in ("cl", "nscl", "scl", "ce")


def test_the_charts_show_the_numbers_of_the_tables(charts: dict[str, Chart], measured_run: Path) -> None:
    """Summary and slider against the CSV files; each arm has one colour everywhere."""
    found = charts
    gaps = pd.read_csv(measured_run / "analysis/weight_gap.csv")
    left, right = ([t for t in found["headline"].variants[""]["data"] if ("xaxis" in t) == second] for second in (0, 1))
    rows = whole_encoder(gaps, "mean").query("arm == 'scl'")
    assert left[1]["y"] == pytest.approx(rows["gap"].tolist(), rel=1e-6)
    scores = pd.read_csv(measured_run / "analysis/test_alignment.csv").query("arm == 'scl' and module == 'h'")
    assert right[1]["y"] == pytest.approx(scores[scores["metric"] == "cka"]["value"].tolist(), rel=1e-6)
    colours = {(t["meta"]["arm"], t["line"]["color"]) for t in (*left, *right)}
    assert len(colours) == 3
    figure = found["layers"].variants["gap by layer, to cl"]
    assert figure["slider"] == [0, 1, 2, 3]
    heat = figure["data"][1]
    row = heat["y"].index("layer2.0.conv1")
    rows = gaps[(gaps["tensor"] == "encoder.layer2.0.conv1.weight") & (gaps["arm"] == "scl")]
    assert heat["z"][row] == pytest.approx(rows["gap"].tolist(), rel=1e-6)
    profile = figure["data"][4]
    assert profile["meta"]["arm"] == "scl"
    assert profile["meta"]["profile"][2] == [cells[2] for cells in heat["z"]]
    rows = scores[scores["metric"] == "cka"]
    bars = next(t for t in found["alignment"].variants["cka, h, test images"]["data"] if t["name"] == "scl")["error_y"]
    assert bars["array"] == pytest.approx((rows["ci_high"] - rows["value"]).tolist(), rel=1e-6)
    assert bars["arrayminus"] == pytest.approx((rows["value"] - rows["ci_low"]).tolist(), rel=1e-6)
    assert bars["array"][3] != pytest.approx(bars["arrayminus"][3])


def test_alignment_by_layer_is_in_the_order_of_the_network(charts: dict[str, Chart], measured_run: Path) -> None:
    """Checked in heat maps, profiles, and layer-by-layer matrices at each epoch of the slider."""
    found = charts
    layers = ["stem", "layer1", "layer2", "layer3", "layer4", "h", "z"]
    figure = found["alignment_layers"].variants["cka, to cl, test images"]
    scores = pd.read_csv(measured_run / "analysis/test_alignment.csv").query("arm == 'ce' and metric == 'cka'")
    heat, profile = figure["data"][2], figure["data"][5]
    assert heat["meta"]["arm"] == profile["meta"]["arm"] == "ce"
    assert heat["y"] == profile["y"] == layers
    of_layer3 = scores[scores["module"] == "layer3"]["value"].tolist()
    assert heat["z"][3] == pytest.approx(of_layer3, rel=1e-6)
    assert [at_epoch[3] for at_epoch in profile["meta"]["profile"]] == heat["z"][3]
    figure = found["cross_layer"].variants["cka, to cl, train images"]
    every = pd.read_csv(measured_run / "analysis/train_cross_layer.csv")
    cross = every.query("arm == 'scl'")
    heat = figure["data"][1]
    assert (heat["x"], heat["y"], figure["slider"]) == (layers, layers, [0, 1, 2, 3])
    cell = cross.query("epoch == 2 and reference_module == 'stem' and module == 'h'")["value"].item()
    assert heat["meta"]["frames"][2][0][5] == pytest.approx(cell, rel=1e-6)
    assert heat["z"] == heat["meta"]["frames"][3]
    scale = figure["layout"]["coloraxis"]
    assert [scale["cmin"], scale["cmax"]] == pytest.approx([every["value"].min(), every["value"].max()], rel=1e-6)


def test_the_newest_rows_of_a_table_are_shown(charts: dict[str, Chart], measured_run: Path, tmp_path: Path) -> None:
    """A run that was continued from an older checkpoint on another machine has old and new rows."""
    run = copied(measured_run, tmp_path / "run")
    expected = {key: chart.variants for key, chart in charts.items()}
    for name, digest in (("weight_gap", "arm_digest"), ("test_alignment", "arm_digest"), ("quality", "arm_digest")):
        path = run / f"analysis/{name}.csv"
        table = pd.read_csv(path)
        older = table.assign(**{digest: "0" * 16, "gap" if "gap" in table else "value": 0.5})
        pd.concat([older, table]).to_csv(path, index=False)
    assert {key: chart.variants for key, chart in charts_of(run).items()} == expected
    path = run / "analysis/test_alignment.csv"
    table = pd.read_csv(path)
    table.loc[table["arm_digest"] != "0" * 16, ["ci_low", "ci_high"]] = float("nan")
    table.to_csv(path, index=False)
    newest = report_runs(run)[0].table(path.name)
    assert newest["ci_low"].isna().all()  # the interval is of the other snapshot


def test_vacuous_floors_are_gaps_and_each_bound_is_shown_with_its_error(measured_run: Path, tmp_path: Path) -> None:
    run = copied(measured_run, tmp_path / "run")
    table = pd.read_csv(run / "analysis/bounds.csv")
    which = "arm == 'ce' and module == 'h' and of == 'cka' and bound == 'a_posteriori' and split == 'test'"
    rows = table.query(which).index
    table.loc[rows, "vacuous"] = ["no", "no", "yes", "yes"]
    table.to_csv(run / "analysis/bounds.csv", index=False)
    found = charts_of(run)
    data = found["alignment_bounds"].variants["cka, h, test images"]["data"]
    floor = next(t for t in data if t["name"] == "ce · a posteriori")
    assert floor["y"][:2] == pytest.approx(table.loc[rows, "value"].tolist()[:2], rel=1e-6)
    assert floor["y"][2:] == [None, None]
    shots = found["few_shot"].variants["probe, two classes, z"]["data"]
    bound = next(t for t in shots if t["name"] == "nscl · proposition 1")
    rows = table.query(
        "arm == 'nscl' and module == 'z' and of == 'probe_error' and epoch == 3 and bound == 'proposition_1'"
    )
    rows = rows[rows["task"] == "two_way"]
    assert bound["y"] == pytest.approx(rows["value"].tolist(), rel=1e-6)


def test_missing_tables_are_listed_with_their_commands(new_run: NewRun, measured_run: Path) -> None:
    """Without analysis all tables are missing; after further training, tables lack the new epochs."""
    (empty,) = report_runs(new_run(epochs=(0,)))
    assert [each.table for each in missing_tables(empty)] == [name for names in PROGRAMS.values() for name in names]
    assert {each.state for each in missing_tables(empty)} == {"not computed"}
    assert missing_tables(empty)[0].command[-2:] == ("--output", f"{empty.run.path}/analysis")
    table = to_compute([changed(empty, path=Path("my run"))])
    assert table.rows[0][3].value == "coupled verify --run-dir 'my run' --output 'my run/analysis'"
    (whole,) = report_runs(measured_run)
    assert missing_tables(whole) == []


def test_tables_of_a_run_that_continued_are_out_of_date(measured_run: Path, tmp_path: Path) -> None:
    run = copied(measured_run, tmp_path / "run")
    about = json.loads((run / "run.json").read_text())
    about["settings"]["epochs"] = 8
    (run / "run.json").write_text(json.dumps(about))
    with (run / "epochs.csv").open("a") as file:
        file.write("7,cl,1.0,0.1,1.5,900\n8,cl,1.0,0.1")  # the last row is being written
    every = missing_tables(report_runs(run)[0])
    found = {each.table: each.state for each in every}
    assert len(found) == len(every)
    assert set(found.values()) == {"up to epoch 3 of 7"}
    assert {"verify.csv", "weight_gap.csv", "bounds.csv"} <= set(found)
    assert "weight_gap_growth.csv" not in found
    assert partial_tables(report_runs(run)[0]) == []  # nothing is listed twice


def test_a_table_that_lacks_an_arm_is_reported_as_partial(measured_run: Path, tmp_path: Path) -> None:
    """After `--compare nscl` the user sees which arms are still to be compared."""
    run = copied(measured_run, tmp_path / "run")
    for name, arms in (("train_alignment.csv", "arm != 'ce' or epoch < 3"), ("losses.csv", "arm == 'cl'")):
        path = run / "analysis" / name
        pd.read_csv(path).query(arms).to_csv(path, index=False)
    found = [(each.table, each.state) for each in missing_tables(report_runs(run)[0])]
    expected = [("train_alignment.csv", "without ce at epoch 3"), ("losses.csv", "without nscl, scl, ce at epoch 3")]
    assert found == expected


def test_tables_are_up_to_date_between_two_snapshots(measured_run: Path, tmp_path: Path) -> None:
    """No command could compute an epoch that has no snapshot."""
    run = copied(measured_run, tmp_path / "run")
    about = json.loads((run / "run.json").read_text())
    about["settings"] |= {"epochs": 30, "snapshots": {"every_epochs": 10, "dense_until_epoch": 3}}
    (run / "run.json").write_text(json.dumps(about))
    with (run / "epochs.csv").open("a") as file:
        file.write("9,cl,1.0,0.1,1.5,900\n")
    assert missing_tables(report_runs(run)[0]) == []
    with (run / "epochs.csv").open("a") as file:
        file.write("10,cl,1.0,0.1,1.5,900\n")
    assert {each.state for each in missing_tables(report_runs(run)[0])} == {"up to epoch 3 of 10"}


@pytest.mark.parametrize(("every", "epochs", "kept"), [(1, 10**6, [0, 1, 2]), (2, 10**6, [0, 2]), (3, 2, [0, 2])])
def test_the_number_of_epochs_does_not_slow_the_report(
    monkeypatch: pytest.MonkeyPatch, every: int, epochs: int, kept: list[int]
) -> None:
    """A run with two snapshots may have settings of a million epochs; looking each up would take minutes."""
    looked: list[str] = []
    snapshots = SimpleNamespace(every_epochs=every, dense_until_epoch=0)
    settings = SimpleNamespace(epochs=epochs, snapshots=snapshots)
    run = ReportRun(
        "run", SimpleNamespace(description={}, settings=settings), {"epochs.csv": pd.DataFrame({"epoch": [1, 2]})}
    )
    table = ReportRun.table
    monkeypatch.setattr(ReportRun, "table", lambda run, name: (looked.append(name), table(run, name))[1])
    asked: list[int] = []
    choose = tables.snapshot_epochs
    monkeypatch.setattr(tables, "snapshot_epochs", lambda n, *more: (asked.append(n), choose(n, *more))[1])
    assert run.kept_epochs == kept
    assert looked == ["epochs.csv"]
    assert asked[0] <= 3


def test_bounds_are_out_of_date_if_their_source_tables_are_newer(measured_run: Path, tmp_path: Path) -> None:
    """If bounds.py ran before quality.py, it lacks few-shot errors and must run again."""
    run = copied(measured_run, tmp_path / "run")
    path = run / "analysis/bounds.csv"
    table = pd.read_csv(path)
    table[~table["of"].str.endswith("_error")].to_csv(path, index=False)
    assert [(each.table, each.state) for each in missing_tables(report_runs(run)[0])] == [
        ("bounds.csv", "without few-shot errors")
    ]
    quality = pd.read_csv(run / "analysis/quality.csv")
    quality[quality["metric"] == "nccc"].to_csv(run / "analysis/quality.csv", index=False)
    assert missing_tables(report_runs(run)[0]) == []
    (run / "analysis/quality.csv").unlink()
    assert [each.table for each in missing_tables(report_runs(run)[0])] == ["quality.csv", "bounds.csv"]
    quality.to_csv(run / "analysis/quality.csv", index=False)
    for rows, state in ((table["reference"].isna(), "without comparisons"), (table["epoch"] < 2, "up to epoch 1 of 3")):
        table[rows | table["reference"].isna()].to_csv(path, index=False)
        assert [(each.table, each.state) for each in missing_tables(report_runs(run)[0])] == [("bounds.csv", state)]
    table.to_csv(path, index=False)
    (run / "analysis/weight_gap.csv").unlink()
    found = {each.table: each.state for each in missing_tables(report_runs(run)[0])}
    assert found["bounds.csv"] == "incomplete: weight_gap.csv is missing or incomplete"


def test_tables_of_chosen_epochs_or_layers_are_reported_but_not_recomputed(measured_run: Path) -> None:
    """`--epochs 0,3` and `--layers h` are deliberate: --compute skips such tables; the page lists them as partial."""
    (run,) = report_runs(measured_run)
    assert missing_tables(run) == []
    assert [(each.table, each.state) for each in partial_tables(run)] == [
        ("quality.csv", "complete at 2 of 4 epochs"),
        ("collapse.csv", "complete at 2 of 4 epochs"),
    ]
    tables = {**run.tables}
    scores = tables["test_alignment.csv"]
    tables["test_alignment.csv"] = scores[scores["module"].isin(["h", "z"])]
    tables["train_alignment.csv"] = scores[(scores["module"] == "h") | (scores["epoch"] == 3)]
    tables["quality.csv"] = tables["quality.csv"].query("module == 'h'")
    del tables["collapse.csv"]
    found = {each.table: each.state for each in partial_tables(replace(run, tables=tables))}
    assert found == {
        "train_alignment.csv": "complete at 1 of 4 epochs",
        "test_alignment.csv": "only layers h, z",
        "quality.csv": "complete at 2 of 4 epochs; only layers h",
    }
    table = to_complete([changed(run, path=Path("my run"))])
    assert [each.value for each in table.rows[0]][::3] == ["drift", "coupled quality --run-dir 'my run'"]


@pytest.mark.parametrize(
    ("arms", "options", "left_out"),
    [
        (("cl",), [], {"weight_gap", "alignment", "bounds"}),
        (("scl", "ce"), ["--reference", "scl"], set()),
    ],
)
def test_the_listed_commands_work_for_the_arms_of_the_run(
    measured_run: Path, tmp_path: Path, arms: tuple[str, ...], options: list[str], left_out: set[str]
) -> None:
    """A single arm has no pair; without `cl` the programs need --reference."""
    run = copied(measured_run, tmp_path / "run")
    about = json.loads((run / "run.json").read_text())
    about["settings"]["arms"] = {arm: about["settings"]["arms"][arm] for arm in arms}
    (run / "run.json").write_text(json.dumps(about))
    for path in (run / "epochs.csv", *(run / "analysis").glob("*.csv")):
        path.unlink()
    listed = [each.command for each in missing_tables(report_runs(run)[0])]
    commands = {name.replace("-", "_"): [name, *options] for name, *options in listed}
    assert set(commands) == set(PROGRAMS) - left_out
    for program, command in commands.items():
        more = OPTIONS.get(program, ())
        assert len(command[3:]) == len(more) + len(options if program in COMPARING else [])
        assert command[3 + len(more) :] == (options if program in COMPARING else [])


def test_a_table_that_is_empty_for_these_arms_is_not_missing(measured_run: Path, tmp_path: Path) -> None:
    """nscl_reached.csv needs an arm that minimises NSCL; without one, losses.py leaves it empty."""
    run = copied(measured_run, tmp_path / "run")
    path = run / "analysis/nscl_reached.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert missing_tables(report_runs(run)[0]) == []


@pytest.mark.parametrize("epochs", [(), (0,)])
def test_empty_and_single_epoch_runs_have_a_page(new_run: NewRun, epochs: tuple[int, ...]) -> None:
    """A run without measurements is not an error: the page lists what is missing."""
    run = new_run(epochs=epochs)
    assert main(["--run-dir", str(run)]) == 0
    text = (run / "analysis/report.html").read_text()
    assert "coupled weight-gap --run-dir" in text
    assert "not run yet" in text


def test_a_folder_whose_name_is_not_utf8_has_a_page(new_run: NewRun, tmp_path: Path) -> None:
    """Bytes that are not UTF-8, or not ASCII in the C locale, are escaped on the page."""
    folder = new_run(epochs=(0,)).rename(tmp_path / "r\udcfc")
    assert main(["--run-dir", str(folder)]) == 0
    assert "r\\udcfc" in (folder / "analysis" / "report.html").read_text(encoding="utf-8")


def test_a_single_measured_epoch_has_charts(measured_run: Path, tmp_path: Path) -> None:
    run = copied(measured_run, tmp_path / "run")
    for path in (run / "analysis").glob("*.csv"):
        table = pd.read_csv(path)
        if "epoch" in table:
            table[table["epoch"] == 0].to_csv(path, index=False)
    assert {"headline", "alignment", "layers", "losses", "loss_gap"} <= set(charts_of(run))
    assert "</html>" in page([open_run(run)])


def test_several_runs_are_shown_together(measured_run: Path, tmp_path: Path) -> None:
    """Lines differ by dash, labels by run; differing settings are marked and come first."""
    other = copied(measured_run, tmp_path / "other")
    about: dict[str, Any] = json.loads((other / "run.json").read_text())
    about["name"] = "other"
    about["settings"]["temperature"] = 0.25
    about["commit"] = "abc"
    (other / "run.json").write_text(json.dumps(about))
    runs = report_runs(measured_run, other)
    charts = charts_of(measured_run, other)
    lines = charts["headline"].variants[""]["data"]
    assert {line["name"] for line in lines if line["meta"]["arm"] == "ce"} == {"drift:ce", "other:ce"}
    assert {line["line"]["dash"] for line in lines} == {"solid", "dash"}
    for key in ("loss_gap", "growth", "losses", "few_shot", "weight_shape"):  # no two lines have one name
        for figure in charts[key].variants.values():
            names = [trace["name"] for trace in figure["data"]]
            assert len({*names}) == len(names)
    table = settings(runs)
    assert [each.value for each in table.rows[0]] == ["temperature", "0.5", "0.25", "≠"]
    assert [each.value for each in table.rows[1]][-1] == ""
    assert ["commit", "", "abc", "≠"] in [[each.value for each in row] for row in about_table(runs).rows]
    for table, name in ((fits(runs), "weight_gap_growth"), (correlations(runs), "loss_correlation")):
        rows = pd.read_csv(measured_run / f"analysis/{name}.csv")
        assert table.columns == ["run", *rows.columns]
        place = table.columns.index("arm")
        assert [(row[0].value, row[place].value) for row in table.rows] == [
            (name, arm) for name in ("drift", "other") for arm in rows["arm"]
        ]
        assert all({each.arm for each in row} == {row[place].value} for row in table.rows)


def test_runs_with_equal_names_are_labelled_by_their_folders(new_run: NewRun, tmp_path: Path) -> None:
    one, two, again = (new_run(epochs=(), name=name) for name in ("one", "two", "again/two"))
    assert [run.name for run in report_runs(one, two)] == ["one", "two"]
    assert [run.name for run in report_runs(two, again)] == [f"{two.parent.name}/two", "again/two"]


def test_cells_are_displayed_rounded_and_copied_in_full(measured_run: Path) -> None:
    assert cell(0.123456789, "cl") == Cell("0.123456789", "0.1235", True, "cl")
    assert cell(float("nan"), "cl") == cell(None, "cl") == Cell("", "", False, "cl")
    assert cell("1e3", "cl") == Cell("1e3", "1e3", False, "cl")
    assert cell(12345, "cl") == Cell("12345", "12345", True, "cl")
    assert flatten({"a": {"b": 1, "c": {}, "d": {"e": None}}, "f": [1, 2]}) == {
        "a.b": "1",
        "a.c": "{}",
        "a.d.e": "None",
        "f": "1, 2",
    }
    (run,) = report_runs(measured_run)
    facts = description_facts(changed(run, description={**run.run.description, "launch": "x", "digest": "y"}))
    assert facts["last epoch"] == 3
    assert facts["digest"] == "y"
    assert not {"launch", "settings"} & set(facts)
    found = pd.read_csv(measured_run / "analysis/verify.csv")["finding"].tolist()
    assert facts["verify"] == f"{len(found)} findings: {'; '.join(found)}"
    passes = pd.DataFrame({"last_epoch": [3], "finding": [float("nan")]})
    assert verify_result(replace(run, tables={"verify.csv": passes})) == "passes, up to epoch 3"


def test_the_last_values_are_those_of_the_last_epoch(measured_run: Path) -> None:
    """Whatever the order of the rows, and also if only one program has run."""
    (run,) = report_runs(measured_run)
    quality = run.table("quality.csv")
    quality = quality.assign(value=quality["value"].where(quality["module"] == "h", 0.3))
    own = quality[quality["metric"] == "nccc"]
    probes = [own.assign(metric="linear_probe", variant=d, value=v) for d, v in (("paper", 0.1), ("regularised", 0.7))]
    few = own.assign(num_images=8, value=0.9)
    tables = {
        name: table[::-1] for name, table in {**run.tables, "quality.csv": pd.concat([few, quality, *probes])}.items()
    }

    def row(arm: str = "scl", **only: pd.DataFrame) -> list[str]:
        table = last_values([replace(run, tables={f"{name}.csv": each for name, each in only.items()} or tables)])
        return next([each.value for each in row][1:] for row in table.rows if row[0].value == arm)

    assert last_values([replace(run, tables=tables)]).caption == "Reference: cl."

    gap = whole_encoder(run.table("weight_gap.csv"), "mean").query("arm == 'scl' and epoch == 3")["gap"].item()
    scores = run.table("test_alignment.csv").query("arm == 'scl' and module == 'h' and epoch == 3").set_index("metric")
    nccc = own.query("arm == 'scl' and module == 'h' and epoch == 3")["value"].item()
    expected = [*map(repr, (gap, *scores.loc[["cka", "rsa"], "value"], nccc)), "0.7"]
    assert row() == expected
    assert row(weight_gap=run.table("weight_gap.csv")) == [expected[0], "", "", "", ""]
    assert row(quality=quality) == ["", "", "", "", expected[3], ""]  # the first is the reference


def test_the_last_values_are_printed_and_then_the_path(
    measured_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Columns without values, and the name of a single run, are omitted."""
    path = tmp_path / "page.html"
    assert main(["--run-dir", str(measured_run), "--output", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = last_values(report_runs(measured_run))
    printed = [line.split() for line in lines if line.split()[:1] in (["nscl"], ["scl"], ["ce"])]
    rows = [[each.text for each in row if each.text] for row in table.rows if row[0].value != "cl"]
    assert printed == rows
    assert not any("probe" in line for line in lines)
    assert lines[-1] == str(path)


def test_the_page_is_one_file_that_loads_nothing(measured_run: Path, tmp_path: Path) -> None:
    """No tag of ours fetches anything, the content security policy forbids it, and a run's text cannot become a tag."""
    run = copied(measured_run, tmp_path / "run")
    about = json.loads((run / "run.json").read_text())
    about["device"] = "</script><b>x"  # not the name: it has letters, digits, - and _ only
    (run / "run.json").write_text(json.dumps(about))
    path = run / "analysis/quality.csv"
    path.write_text(path.read_text().replace(",z,cdnv,", ",z,<!--<script>,"))
    assert main(["--run-dir", str(run), "--output", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    ours = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(src|href)=(?!\"#)|@import|url\(", ours)
    assert "default-src 'none'" in text
    assert "</script><b>" not in text
    data = re.search(r"const REPORT = (.*?);</script>", text)
    assert data
    assert "<" not in data[1]
    assert "&lt;/script&gt;&lt;b&gt;x" in text
    assert "<!--<script> (one_class), z, test" in json.loads(data[1])["charts"]["quality"]


def test_compute_runs_the_missing_programs_in_order(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each program once; if one fails, the report stops with one line."""
    run = new_run(epochs=(0,))
    ran: list[str] = []

    def fake(command: list[str], check: bool, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        ran.append(command[4].replace("-", "_"))  # behind python -P -m coupled
        return subprocess.CompletedProcess(command, status.get(ran[-1], 0))

    monkeypatch.setattr(report.subprocess, "run", fake)
    status = {"verify": 1, "bounds": 1}  # findings
    assert main(["--run-dir", str(run), "--compute"]) == 0
    assert ran == list(PROGRAMS)
    for program, failed in (("bounds", 2), ("losses", 1)):
        status = {program: failed}
        ran.clear()
        (run / "analysis/report.html").unlink()
        assert main(["--run-dir", str(run), "--compute"]) == 2
        assert ran == list(PROGRAMS)  # the others and the page are made all the same
        assert (run / "analysis/report.html").is_file()
        error = f"--compute: 'coupled {program} --run-dir {run}' ended with exit status {failed}"
        assert error in capsys.readouterr().err


@pytest.mark.slow
def test_compute_makes_the_tables(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a real program: the one that needs only weights."""
    names = {name: PROGRAMS[name] for name in ("weight_gap",)}
    monkeypatch.setattr("coupled.analysis.report.missing.PROGRAMS", names)
    run = new_run(epochs=(0, 1, 2, 3))
    assert main(["--run-dir", str(run), "--compute"]) == 0
    assert {path.name for path in (run / "analysis").glob("*.csv")} == {each for n in names.values() for each in n}
    assert capfd.readouterr().out.splitlines()[-1] == str(run / "analysis/report.html")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--run-dir", "nowhere"], "--run-dir: no such folder 'nowhere'"),
        (
            ["--run-dir", "{run}", "--output", "{run}/snapshots"],
            "--output: {run}/snapshots: Is a directory",
        ),
        (["--run-dir", "{run}", "{run}/analysis/.."], "--run-dir: a run folder is listed twice; list each run once"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    measured_run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert main([each.format(run=measured_run) for each in arguments]) == 2
    error = capsys.readouterr().err
    assert part.format(run=measured_run) in error
    assert error.count("\n") == 1


def test_an_unreadable_table_and_a_missing_library_are_named(
    measured_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(measured_run, tmp_path / "run")
    (run / "analysis/losses.csv").write_text("a,b\n1,2,3,4\n1\n1,2,3,4,5,6\n")
    assert main(["--run-dir", str(run)]) == 2
    assert "losses.csv: row 1: no column 'epoch' (columns: a, b)" in capsys.readouterr().err
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    assert main(["--run-dir", str(run)]) == 2
    assert "the report needs jinja2, which is not installed: pip install jinja2" in capsys.readouterr().err


def test_layers_are_sorted_by_number_and_numbers_are_formatted_plainly() -> None:
    names = ["projector.0", "encoder.layer1.10.conv1", "encoder.layer1.2.conv2", "encoder.layer1.2.bn1"]
    names += ["encoder.layer1.2.conv1", "encoder.bn1", "encoder.conv1"]
    assert sorted(names, key=layer_sort_key) == names[::-1]
    names = ["stem", "patch_embed.proj", "blocks.2.norm1", "blocks.10.norm1", "norm", "projector.0", "h", "z"]
    assert sorted({*names}, key=layer_sort_key) == names
    assert numbers([1.23456789, float("nan"), float("inf"), 2]) == [1.234568, None, None, 2.0]
