"""The first sentence of a report, its charts over steps, and what it says instead of missing numbers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.report_parts import changed, copied, report_runs

from coupled.analysis import weight_gap
from coupled.analysis.report.charts import trace
from coupled.analysis.report.headline import headline
from coupled.analysis.report.missing import Missing, by_command
from coupled.analysis.report.page_tables import fits, without_empty_columns
from coupled.analysis.report.program import main as report
from coupled.analysis.report.program import sections
from coupled.analysis.report.step_charts import steps
from coupled.analysis.report.tables import STEPS, ReportRun, read_tables
from coupled.analysis.selections.looks import Looks
from coupled.analysis.selections.losses import MOST_POINTS, binned
from coupled.analysis.selections.seeds import by_seed

ARMS: dict[str, Any] = {
    "cl": {"objective": "dcl"},
    "nscl": {"objective": "nscl"},
    "ce": {"objective": "cross_entropy"},
    "again": {"objective": "dcl", "twin": "cl", "perturb": {"step": 1}},
}


def scored(run: ReportRun, name: str = "x", seed: int = 0, arms: Any = ARMS, **values: float) -> ReportRun:
    """The run with these arms, and CKA at epochs 0 and 2; at epoch 4 only ce was measured."""
    settings = {**run.run.description["settings"], "name": name, "seed": seed, "arms": arms}
    rows = [(epoch, arm, value if epoch else 1.0) for epoch in (0, 2) for arm, value in values.items()]
    rows += [(4, "ce", 0.1)] if "ce" in values else []
    table = pd.DataFrame(rows, columns=["epoch", "arm", "value"])
    table = table.assign(reference="cl", metric="cka", module="h", split="test", num_images=9)
    other = changed(run, description={**run.run.description, "settings": settings})
    object.__setattr__(other.run, "settings", replace_arms(run, arms))
    return replace(other, name=name, tables={"test_alignment.csv": table})


def replace_arms(run: ReportRun, arms: Any) -> Any:
    return run.run.settings.model_copy(update={"arms": arms})


@pytest.fixture(scope="module")
def measured(measured_run: Path) -> ReportRun:
    return report_runs(measured_run)[0]


def test_the_sentence_names_the_nearest_arm_and_the_noise_floor(measured: ReportRun) -> None:
    """At the last epoch that all arms have; a twin of the reference is not a competitor."""
    run = scored(measured, nscl=0.91, ce=0.734, again=0.9991)
    assert headline([run]).sentences == [
        "After 2 epochs, nscl is nearest to cl: CKA of h on test images 0.91; ce 0.73;"
        " noise floor: again, a twin of cl, 0.9991. One seed."
    ]
    assert headline([run], " not shared: ce optimizer.base_lr.").note == "not shared: ce optimizer.base_lr."
    many = {f"arm{k}": {"objective": "dcl", "temperature": 1.0 + k} for k in range(8)}
    scores = {arm: 0.9 - k / 10 for k, arm in enumerate(many)}
    (text,) = headline([scored(measured, arms={**ARMS, **many}, **scores)]).sentences
    assert text.endswith(
        "images 0.90; arm1 0.80, arm2 0.70, arm3 0.60, arm4 0.50, arm5 0.40, ..., arm7 0.20 (8 arms). One seed."
    )
    (alone,) = headline([scored(measured, nscl=0.91)]).sentences
    assert alone == "After 2 epochs, CKA of h on test images of nscl with cl is 0.91. One seed."
    assert headline([replace(run, tables={})], " a note.").sentences == []


def test_the_sentence_has_the_intervals_or_the_weights_that_were_computed(measured: ReportRun) -> None:
    """Without CKA the nearest arm is that with the smallest weight gap."""
    run = scored(measured, nscl=0.91, ce=0.734)
    table = run.table("test_alignment.csv").assign(ci_low=0.9, ci_high=0.925)
    table.loc[table["arm"] == "ce", ["ci_low", "ci_high"]] = 0.730, 0.739
    (text,) = headline([replace(run, tables={"test_alignment.csv": table})]).sentences
    assert "images 0.91 [0.90, 0.93]; ce 0.734 [0.730, 0.739]. One seed; brackets: 95 % intervals over images." in text
    (text,) = headline([replace(measured, tables={"weight_gap.csv": measured.table("weight_gap.csv")})]).sentences
    assert (
        text
        == "After 3 epochs, nscl is nearest to cl: weight gap, mean over layers, 0.017; scl 0.052, ce 0.087. One seed."
    )


def test_seeds_of_one_experiment_have_one_sentence_with_their_spread(measured: ReportRun) -> None:
    """And the number of seeds in which the arm is nearest; runs that differ otherwise have a sentence each."""
    runs = [scored(measured, f"s{k}", k, nscl=each, ce=0.8) for k, each in enumerate((0.9, 0.86, 0.79))]
    assert by_seed([run.run.description["settings"] for run in runs]) == [[0, 1, 2]]
    spread = np.std([0.9, 0.86, 0.79], ddof=1)
    assert headline(runs).sentences == [
        f"After 2 epochs, nscl is nearest to cl: CKA of h on test images 0.85 ± {spread:.2f}; ce 0.80 ± 0.00."
        " Mean ± standard deviation over 3 seeds; nscl is nearest in 2 of them."
    ]
    (near,) = headline([scored(measured, f"s{k}", k, nscl=0.9960 + k / 1000, ce=0.8) for k in range(3)]).sentences
    assert "images 0.9970 ± 0.0010; ce 0.80 ± 0.00." in near  # as many decimals for the spread as for the mean
    other = scored(measured, "other", 0, {**ARMS, "ce": {"objective": "supcon"}}, nscl=0.5, ce=0.6)
    assert [text[:40] for text in headline([runs[0], other]).sentences] == [
        "s0: After 2 epochs, nscl is nearest to c",
        "other: After 2 epochs, ce is nearest to ",
    ]


def test_loss_norm_and_rate_of_each_arm_are_shown_over_steps(measured: ReportRun) -> None:
    """An arm with its own optimizer has the rates of epochs.csv, at the last step of each epoch."""
    count = 2 * MOST_POINTS + 1
    of_arms = {f"{arm}_{what}": np.arange(count) + k for k, arm in enumerate(ARMS) for what in ("loss", "grad_norm")}
    table = pd.DataFrame({"epoch": 1, "step": np.arange(1, count + 1), "lr": 0.5, "inputs_digest": "d", **of_arms})
    table.loc[count - 1, "epoch"] = 2
    epochs = pd.DataFrame({"epoch": [1, 2], "arm": "ce", "lr": [0.1, 0.2]})
    arms = {**ARMS, "ce": {**ARMS["ce"], "optimizer": {"base_lr": 0.1}}}
    run = replace(scored(measured, arms=arms), tables={"steps.csv": table, "epochs.csv": epochs})
    chart = steps([run], Looks([run]))
    assert list(chart.variants) == ["training loss", "gradient norm", "learning rate"]
    assert "A point is the mean of 3 steps." in chart.caption
    lines = {line["name"].partition(" ")[0]: line for line in chart.variants["training loss"]["data"]}
    assert list(lines) == list(ARMS)
    assert lines["nscl"]["x"][:2] == [2, 5]  # means of steps 1 to 3 and 4 to 6
    assert lines["nscl"]["y"][:2] == [2, 5]
    rates = {line["name"]: line for line in chart.variants["learning rate"]["data"]}
    assert list(rates) == ["shared", "ce"]
    assert (rates["ce"]["x"], rates["ce"]["y"]) == ([count - 1, count], [0.1, 0.2])
    assert binned(table[:MOST_POINTS]) is not None
    assert len(binned(table)) <= MOST_POINTS
    assert steps([replace(run, tables={})], Looks([run])).variants == {}


def test_steps_of_arms_with_their_own_views_are_read(tmp_path: Path) -> None:
    """steps.csv then has one column of digests for each stream, and none for all."""
    (tmp_path / "steps.csv").write_text("epoch,step,a_inputs_digest,b_inputs_digest,lr,a_loss\n1,1,x,y,0.1,2.5\n")
    table = read_tables(tmp_path, ["a", "b"])["steps.csv"]
    assert {*STEPS, "a_loss"} <= {*table}
    assert table["a_loss"].tolist() == [2.5]


def test_fits_say_in_words_what_has_no_number(measured: ReportRun) -> None:
    """An infinite level or doubling time, and a fit that does not converge; copied values are those of the table."""
    columns = ["reference", "arm", "model", "slope", "rate", "level", "doubling_time", "doubling_time_error", "aic"]
    nan, inf = float("nan"), float("inf")
    rows = [
        ("cl", "ce", "early", nan, nan, nan, nan, nan, nan),
        ("cl", "ce", "exponential", 0.1, 0.0, nan, inf, nan, 3.0),
        ("cl", "ce", "saturation", 0.1, 0.0, inf, nan, nan, -inf),
        ("cl", "nscl", "saturation", nan, nan, nan, nan, nan, nan),
    ]
    run = replace(measured, tables={"weight_gap_growth.csv": pd.DataFrame(rows, columns=columns)})
    table = fits([run])
    texts = [dict(zip(table.columns, [each.text for each in row], strict=True)) for row in table.rows]
    assert [text["rate"] for text in texts] == ["too few epochs", "0", "0", "does not converge"]
    assert texts[1]["doubling_time"] == "does not double"
    assert (texts[2]["level"], texts[2]["aic"]) == ("none: a straight line", "exact fit")
    assert table.rows[2][list(table.columns).index("level")].value == "inf"
    assert "doubling_time_error" not in without_empty_columns(table).columns


def test_a_command_is_listed_once_with_all_its_tables() -> None:
    """`coupled losses` writes four tables; the same line four times hides the others."""
    one, two = ("losses", "--run-dir", "r"), ("quality", "--run-dir", "r")
    tables = [
        *(Missing("r", name, "not computed", one) for name in ("a.csv", "b.csv")),
        Missing("r", "q.csv", "up to epoch 1 of 2", two),
        Missing("r", "c.csv", "up to epoch 1 of 2", one),
    ]
    assert by_command(tables) == [
        Missing("r", "3 tables", "a.csv, b.csv: not computed; c.csv: up to epoch 1 of 2", one),
        Missing("r", "q.csv", "up to epoch 1 of 2", two),
    ]
    assert by_command(tables[:2]) == [Missing("r", "a.csv, b.csv", "not computed", one)]


def test_the_headline_is_first_and_the_provenance_last_and_folded(measured: ReportRun) -> None:
    """Readers look before they read; digests and settings are for the one who doubts."""
    kept = ("epochs.csv", "test_alignment.csv")
    run = replace(measured, tables={name: measured.table(name) for name in kept})
    parts = sections([run])
    assert [each["key"] for each in parts][:2] == ["headline", "training"]
    assert [each["key"] for each in parts][-1] == "run"
    assert parts[0]["parts"][0].sentences[0].startswith("After 3 epochs, nscl is nearest to cl")
    assert all(table.folded for table in parts[-1]["parts"])


def test_twenty_five_arms_have_distinct_lines(measured: ReportRun) -> None:
    """Arms of one colour differ in dash and in symbol, in one run and in two."""
    arms = {f"arm{k}": {"objective": "dcl", "temperature": 0.1 + k} for k in range(25)}
    runs = [scored(measured, name, arms=arms) for name in ("one", "two")]
    for shown in (runs[:1], runs):
        looks = Looks(shown)
        lines = [trace(looks.series(run, arm, [0], [0])) for run in shown for arm in arms]
        for kind, part in (("line", "dash"), ("marker", "symbol")):
            looks = {(line["line"]["color"], line[kind][part], line["name"].partition("two:")[1]) for line in lines}
            assert len(looks) == len(lines)
        assert len({(line["line"]["color"], line["line"]["dash"]) for line in lines}) == len(lines)


def test_the_terminal_says_what_the_arms_do_not_share(
    measured_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the table of `coupled report` and in the first lines of an analysis; the figures say it, too."""
    run = copied(measured_run, tmp_path / "run")
    about = json.loads((run / "run.json").read_text())
    about["settings"]["arms"]["ce"]["optimizer"] = {**about["settings"]["optimizer"], "base_lr": 0.123}
    (run / "run.json").write_text(json.dumps(about))
    for path in (run / "analysis").glob("*.csv"):
        path.unlink()
    assert report(["--run-dir", str(run), "--output", str(tmp_path / "page.html")]) == 0
    assert "not shared: ce optimizer.base_lr\n" in capsys.readouterr().out
    shutil.copytree(measured_run / "snapshots", run / "snapshots")
    assert weight_gap.main(["--run-dir", str(run), "--compare", "ce", "--epochs", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "not shared: ce optimizer.base_lr"
