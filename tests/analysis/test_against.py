"""--against: each arm is compared with the arm of the same name in another run, in tables of these two runs only."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from coupled.analysis import alignment, figures, verify, weight_gap
from coupled.analysis.report.tables import read_runs
from coupled.analysis.run import open_run, open_store
from coupled.storage.run_description import read_run_json, write_run_json

NewRun = Callable[..., Path]
FEW = ["--num-images", "64", "--split", "test", "--layers", "h", "--metrics", "cka", "rsa"]


def other_run(drifting_run: Path, folder: Path, **changed: object) -> Path:
    """A run of two epochs whose `nscl` has the weights of the drifting run's `scl`; `cl` is the same in both."""
    drifting = open_run(drifting_run)
    content = {**read_run_json(drifting_run), "settings_sha256": "0" * 64}
    content["dataset"] |= changed
    write_run_json(folder, content)
    store = open_store(folder, content)
    for epoch in (0, 2):
        for arm, source in (("cl", "cl"), ("nscl", "scl")):
            store.write(arm, epoch, drifting.state_dict(source, epoch), step=epoch, metadata={})
    return folder


@pytest.fixture(scope="module")
def other(drifting_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other_run(drifting_run, tmp_path_factory.mktemp("runs") / "warmer")


def test_arms_of_two_runs_score_like_two_arms_of_one_run(new_run: NewRun, other: Path) -> None:
    """The other run has another learning rate, seed or temperature; the values are those of the same weights."""
    run = new_run("own", epochs=(0, 1, 2))
    base = ["--run-dir", str(run), "--against", str(other)]
    assert weight_gap.main([*base, "--compare", "nscl"]) == 0
    assert alignment.main([*base, *FEW]) == 0
    tables = run / "analysis/against/warmer"
    gaps = pd.read_csv(tables / "weight_gap.csv")
    assert set(zip(gaps.epoch, gaps.reference, gaps.arm, strict=True)) == {(e, "nscl", "warmer:nscl") for e in (0, 2)}
    within = weight_gap.compute(open_run(run), reference="nscl", compare="scl", epochs=[0, 2])
    for column in ("gap", "angle", "reference_drift", "arm_drift", "arm_digest"):
        values = gaps.merge(within, on=["epoch", "tensor", "module", "aggregate"], suffixes=("", "_within"))
        if column == "arm_digest":
            assert (values.arm_digest != values.arm_digest_within).all()
        else:
            pd.testing.assert_series_equal(values[column], values[f"{column}_within"], check_names=False)
    scores = pd.read_csv(tables / "test_alignment.csv")
    assert set(scores.arm) == {"warmer:cl", "warmer:nscl"}
    assert (scores[scores.reference == "cl"].value == 1).all()
    options = {"reference": "nscl", "compare": "scl", "epochs": [0, 2], "split": "test", "layers": "h"}
    expected = alignment.compute(open_run(run), metrics=["cka", "rsa"], num_images=64, **options)
    found = scores[scores.reference == "nscl"].merge(expected, on=["epoch", "metric"], suffixes=("", "_within"))
    assert len(found) == 4
    assert found.value.tolist() == found.value_within.tolist()


def test_rows_of_different_pairs_of_runs_are_never_mixed(
    new_run: NewRun, drifting_run: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row of another run in weight_gap.csv would be drawn as an arm of this one."""
    run = new_run("own", epochs=(0, 2))
    assert weight_gap.main(["--run-dir", str(run), "--compare", "nscl"]) == 0
    base = ["--run-dir", str(run), "--against", str(other)]
    assert weight_gap.main(base) == 0
    assert set(pd.read_csv(run / "analysis/weight_gap.csv").arm) == {"nscl"}
    assert (
        json.loads((run / "analysis/against/warmer/source.json").read_text())["against"]["settings_sha256"] == "0" * 64
    )
    (shown,) = read_runs([open_run(run)])
    assert set(shown.table("weight_gap.csv").arm) == {"nscl"}
    twice = other_run(drifting_run, tmp_path / "elsewhere/warmer")
    write_run_json(twice, {**read_run_json(twice), "name": "third"})
    for bad, said in (
        (["--output", str(run / "analysis")], "holds rows of another run"),  # of the run by itself
        (["--against", str(twice)], "holds rows of another run"),  # two runs in folders of one name
    ):
        capsys.readouterr()
        arguments = base if "--output" in bad else base[:2]
        assert weight_gap.main([*arguments, *bad]) == 2
        assert said in capsys.readouterr().err
    shutil.copy(run / "analysis/against/warmer/weight_gap.csv", run / "analysis/weight_gap.csv")
    assert figures.main(["--run-dir", str(run)]) == 2  # copied by hand: its arms are none of the run
    assert "arm: got 'warmer:cl', expected an arm of the run" in capsys.readouterr().err


def test_runs_that_cannot_be_compared_are_refused_in_one_line(
    new_run: NewRun, drifting_run: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run("own", epochs=(0, 2), arms=("cl", "nscl", "scl"))
    foreign = other_run(drifting_run, tmp_path / "foreign", test_digest="f" * 32)
    alone = new_run("alone", arms=("ce",), epochs=(0,))
    late = new_run("late", arms=("cl",), epochs=(7,))
    for program, bad, said in (
        (weight_gap, ["--against", str(other), "--compare", "scl"], f"'{other}' has no arm 'scl' (arms: cl, nscl)"),
        (weight_gap, ["--against", str(other), "--compare", "all"], "--compare: got 'all', which compares every pair"),
        (weight_gap, ["--against", str(other), "--reference", "cl"], "--reference: got 'cl'; with --against"),
        (weight_gap, ["--against", str(other), "--epochs", "1"], "arm 'cl' has no snapshot of epoch 1"),
        (weight_gap, ["--against", str(alone)], f"'{alone}' (arms: ce) have no arm of the same name"),
        (weight_gap, ["--against", str(late)], "have no snapshots of the same epoch"),
        (
            weight_gap,
            ["--against", str(tmp_path)],
            f": --against: '{tmp_path}' is not a run folder: it has no run.json",
        ),
        (verify, ["--against", str(tmp_path)], f": --against: '{tmp_path}' is not a run folder: it has no run.json"),
        (alignment, ["--against", str(foreign), *FEW], "have different images: digest of the test images"),
    ):
        assert program.main(["--run-dir", str(run), *bad]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
