"""bounds: rows equal the definitions, no score is below its floor, and bounds without their tables are left out."""

import csv
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny
from torch import Tensor

from coupled.analysis import alignment, bounds, quality, weight_gap
from coupled.analysis.bounds import METRICS, main
from coupled.analysis.representations.pair_scores import Score, scores
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.theory.alignment_floors import Rates, floors, has_apriori_bound, log_distances, rates_by_epoch
from coupled.analysis.theory.bound_formulas import Scatter, proposition_1, weight_distance
from coupled.analysis.theory.bounds_of_tables import few_shot_rows, weight_rows
from coupled.config.by_name import find
from coupled.config.load import resolve

NewRun = Callable[..., Path]


@pytest.fixture
def run(new_run: NewRun) -> Path:
    """A run with learning rates: 3 steps an epoch."""
    run = new_run(epochs=(0, 1, 2))
    with (run / "steps.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", "step", "inputs_digest", "lr", "cl_loss"])
        writer.writerows([1 + step // 3, step + 1, "d", 0.1 * (step + 1), 1.0] for step in range(6))
    return run


def matrices(rows_nD: Tensor) -> dict[str, Tensor]:
    """The n x n matrices that CKA and RSA correlate: the centred Gram matrix; pairwise cosines minus their mean."""
    n = len(rows_nD)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    unit = torch.nn.functional.normalize(rows_nD, dim=1)
    apart = ~torch.eye(n, dtype=torch.bool)
    cosines = (unit @ unit.T)[apart]
    gram_of_unit = centring @ unit @ unit.T @ centring
    return {
        "cka": centring @ rows_nD @ rows_nD.T @ centring,
        "rsa": cosines - cosines.mean(),
        "unit_cka": gram_of_unit,
    }


@given(st.integers(0, 10**6), st.floats(0, 2))
def test_distances_equal_those_of_n_x_n_matrices_and_no_score_is_below_its_floor(seed: int, apart: float) -> None:
    """To 1e-8, for arms near and far; the floors are checked by `floors` itself."""
    rng = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, 12, 4, generator=rng, dtype=torch.float64)
    y = x + apart * noise
    wanted = [Score("a", "b", "h", metric) for metric in METRICS]
    values = scores([{("a", "h"): x[:7], ("b", "h"): y[:7]}, {("a", "h"): x[7:], ("b", "h"): y[7:]}], wanted, METRICS)
    of_pair = {score.metric: value for score, value in values.items()}
    one, other = matrices(x), matrices(y)
    for of in ("cka", "rsa"):
        rho = float((one[of] - other[of]).norm() / one[of].norm())
        assert of_pair[f"rho_{of}"] == pytest.approx(rho, abs=1e-7)
    assert of_pair["log_norm_cka"] == pytest.approx(log(float(one["unit_cka"].norm())), abs=1e-9)
    assert of_pair["log_norm_rsa"] == pytest.approx(log(float(one["rsa"].norm())), abs=1e-9)
    found = list(floors(of_pair, None))
    assert [(bound, of) for bound, of, *_ in found] == [
        (bound, of) for of in ("cka", "rsa") for bound in ("a_posteriori", "a_posteriori_sharp")
    ]


def test_a_score_below_its_a_posteriori_floor_is_an_error() -> None:
    """rho = 0.25 allows no CKA below 0.6. A score below its a-priori floor is a row, not an error."""
    values = {"cka": 0.59, "rho_cka": 0.25, "log_norm_cka": 2.0, "rsa": 1.0, "rho_rsa": 0.0, "log_norm_rsa": 0.0}
    with pytest.raises(ValueError, match=r"cka is 0\.59, below its a_posteriori bound 0\.6, which contradicts"):
        list(floors(values, None))
    with pytest.raises(ValueError, match=r"cka is 0\.96, below its a_posteriori_sharp bound 0\.968"):
        list(floors(values | {"cka": 0.96}, None))
    values |= {"cka": 0.97}
    found = {(bound, of): floor for bound, of, floor, _, _ in floors(values, 2 + log(0.01))}
    assert found["a_priori", "cka"] == pytest.approx(0.99 / 1.01)
    assert found["a_posteriori", "cka"] == pytest.approx(0.6)
    assert found["a_posteriori", "rsa"] == 1


def test_the_a_priori_bound_needs_dcl_and_nscl_arms_that_are_otherwise_alike() -> None:
    own = {
        "init": {"objective": "nscl", "unshared": ["init"]},
        "augmentation": {"twin": "b", "unshared": ["augmentation"]},
        "moved": {"twin": "b", "perturb": {"ulps": 1, "step": 0}},
    }
    warm, square = {"objective": "nscl", "temperature": 1.0}, {"objective": "dcl", "similarity": "square"}
    arms = {"a": "dcl", "b": "nscl", "warm": warm, "c": "dcl", "d": "supcon", "square": square, **own}
    written = tiny.tiny_settings(arms=arms)
    for settings in (written, resolve(written.resolved())):  # the latter is what run.json holds
        assert has_apriori_bound(settings, "a", "b")
        assert has_apriori_bound(settings, "b", "a")
        assert not any(has_apriori_bound(settings, "a", arm) for arm in ("warm", "c", "d", *own))
        assert not has_apriori_bound(settings, "square", "b")


def test_the_a_priori_bound_uses_the_settings_of_the_arm_and_the_run() -> None:
    """The arm's temperature, not the run's; the batch; steps and rates up to the epoch; the largest class."""
    arms = {"a": {"objective": "dcl", "temperature": 0.4}, "b": {"objective": "nscl", "temperature": 0.4}}
    settings = tiny.tiny_settings(arms=arms)
    share = 0.2 + (log(10 * 256 / 0.05) / 512) ** 0.5
    gap = log(2) + 2 / 0.4 + log(share / (1 - share))
    expected = 1.5 / (2 * 0.16 * 256) + log(1.5 / (0.4 * 16)) + gap
    assert log_distances(settings, "a", Rates(10, 1.5), 0.2) == pytest.approx(expected, rel=1e-12)


def test_learning_rates_are_summed_over_steps() -> None:
    rows = [{"epoch": str(epoch), "lr": lr} for epoch, lr in ((1, "0.5"), (1, "0.25"), (2, "1"))]
    assert rates_by_epoch(rows) == {0: (0, 0), 1: (2, 0.75), 2: (3, 1.75)}


def test_bounds_are_written_beside_the_measured_values(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all tables: alignment beside alignment.py's values, few-shot errors beside quality.py's."""
    calls: list[Any] = []
    monkeypatch.setattr(bounds, "log_distances", lambda *a: calls.append(a) or log_distances(*a))  # type: ignore[func-returns-value]
    base = ["--run-dir", str(run), "--num-images", "90"]
    assert alignment.main([*base, "--metrics", "cka", "rsa"]) == 0
    metrics = ["--metrics", "cdnv", "root_cdnv", "directional_cdnv", "few_shot", "few_shot_two_way"]
    assert quality.main([*base, *metrics, "--arms", "scl", "--epochs", "2"]) == 0
    assert main(base) == 0
    said = capsys.readouterr().out
    table = pd.read_csv(run / "analysis/bounds.csv", keep_default_na=False)
    assert tuple(table.columns) == SCHEMAS["bounds.csv"].columns
    measured = {
        split: pd.read_csv(run / f"analysis/{split}_alignment.csv").set_index(["epoch", "arm", "module", "metric"])[
            "value"
        ]
        for split in ("train", "test")
    }
    floor = table[table["of"].isin(["cka", "rsa"])]
    assert len(floor) == 3 * 2 * 3 * 2 * 2 * 2 + 3 * 2
    for row in floor.itertuples():
        assert row.measured == pytest.approx(measured[row.split][row.epoch, row.arm, row.module, row.of], abs=1e-12)
        assert row.vacuous == ("yes" if float(row.log10_rho) >= 0 else "no")
    priori = floor[floor["bound"] == "a_priori"]
    assert set(zip(priori["arm"], priori["module"], priori["split"], strict=True)) == {("nscl", "z", "train")}
    assert said.count("a priori rho <= 10^") == 6
    largest = find("coupled.datasets", "digits").load("train", image_size=8).labels_N.bincount().max() / 1440
    assert [call[1:3] for call in calls] == [("nscl", Rates(0, 0.0)), ("nscl", Rates(3, ANY)), ("nscl", Rates(6, ANY))]
    assert [call[3] for call in calls] == pytest.approx([float(largest)] * 3)
    few = table[table["bound"] == "proposition_1"].set_index(["of", "task", "shots", "module"])
    rows = pd.read_csv(run / "analysis/quality.csv").query("split == 'test' and module == 'h'")
    scatter = Scatter(*(rows.set_index("metric").loc[m, "value"] for m in ("cdnv", "root_cdnv", "directional_cdnv")))
    assert few.loc[("nccc_error", "all", "1", "h"), "value"] == pytest.approx(proposition_1(scatter, 10, 1).error)
    assert few.loc[("nccc_error", "two_way", "1", "h"), "value"] == pytest.approx(proposition_1(scatter, 2, 1).error)
    accuracy = rows[(rows["metric"] == "few_shot") & (rows["variant"] == "probe") & (rows["shots"] == 1)][
        "value"
    ].item()
    assert few.loc[("probe_error", "all", "1", "h"), "measured"] == pytest.approx(1 - accuracy)
    assert (
        "weight_gap.csv: no bounds from this table; it needs four epochs or more; write them with:"
        f" coupled weight-gap --run-dir {run} --reference cl" in said
    )


def test_scores_below_the_a_priori_bound_are_an_error_after_all_rows_are_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1 and one line with the largest violation; a second call, which computes nothing, prints the same."""
    monkeypatch.setattr(bounds, "log_distances", lambda *_: -50.0)
    options = ["--run-dir", str(run), "--num-images", "40", "--split", "train"]
    for _ in range(2):
        assert main(options) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "bounds.csv: 4 of 6 scores lie below their a-priori bound" in error
        assert "largest difference: epoch 2, train, 'nscl'" in error
    table = pd.read_csv(run / "analysis/bounds.csv")
    assert set(table[table["holds"] == "no"]["bound"]) == {"a_priori"}
    assert {*table["epoch"]} == {0, 1, 2}
    monkeypatch.setattr(bounds, "log_distances", lambda *_: 50.0)
    assert main([*options, "--output", str(run / "other")]) == 0


def test_only_missing_rows_are_computed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call passes over no image; a new arm or table adds its rows only."""
    passes: list[int] = []
    real = bounds.scores
    monkeypatch.setattr(bounds, "scores", lambda *a: passes.append(1) or real(*a))  # type: ignore[func-returns-value]
    base = ["--run-dir", str(run), "--num-images", "40", "--split", "test", "--layers", "z"]
    assert main([*base, "--compare", "scl", "--epochs", "0"]) == 0
    assert main(base) == 0
    first = (run / "analysis/bounds.csv").read_bytes()
    assert len(passes) == 1 + 3
    assert main(base) == 0
    assert len(passes) == 1 + 3
    assert weight_gap.main(["--run-dir", str(run)]) == 0
    assert main(base) == 0
    assert (run / "analysis/bounds.csv").read_bytes() == first


def test_the_weight_fit_recovers_slope_and_beta(tmp_path: Path) -> None:
    """Distances of slope 2 and beta 0.5 over uneven rates; fewer than four epochs have no fit."""
    rates = {0: 0.0, 1: 0.5, 2: 1.5, 5: 4.0, 9: 5.0}
    digests = ("reference_digest", "arm_digest")
    rows = [
        (epoch, "cl", "nscl", "", "", "global", weight_distance(total, 2.0, 0.5), *digests)
        for epoch, total in rates.items()
    ]
    table = pd.DataFrame(
        rows, columns=["epoch", "reference", "arm", "tensor", "module", "aggregate", "distance", *digests]
    )
    table.to_csv(tmp_path / "weight_gap.csv", index=False)
    found = weight_rows(tmp_path / "weight_gap.csv", rates)
    assert [row[0] for row in found] == list(rates)
    for row in found:
        cells = dict(zip(SCHEMAS["bounds.csv"].columns, row, strict=True))
        assert cells["value"] == pytest.approx(cells["measured"], abs=1e-4)
        assert (cells["fit_epochs"], cells["fit_last_epoch"]) == (5, 9)
        assert (cells["slope"], cells["beta"]) == (pytest.approx(2, rel=1e-5), pytest.approx(0.5, rel=1e-5))
    table.head(3).to_csv(tmp_path / "weight_gap.csv", index=False)
    assert weight_rows(tmp_path / "weight_gap.csv", rates) == []
    assert (
        weight_rows(tmp_path / "none/weight_gap.csv", rates)
        == few_shot_rows(tmp_path / "none/weight_gap.csv", 10)
        == []
    )


def test_a_printed_a_priori_bound_is_vacuous_kept_or_violated() -> None:
    """Vacuous, kept, and not kept."""
    row = {"epoch": 3, "split": "train", "arm": "nscl", "of": "cka", "value": 0.9, "measured": 0.95, "log10_rho": -1.2}
    assert bounds.in_words(row | {"vacuous": "no", "holds": "yes"}).endswith(
        "rho <= 10^-1.2: cka >= 0.9, measured 0.95"
    )
    assert bounds.in_words(row | {"vacuous": "no", "holds": "no"}).endswith("measured 0.95, below it")
    assert bounds.in_words(row | {"log10_rho": 8.04, "vacuous": "yes"}).endswith("rho <= 10^8.04: vacuous")


def test_missing_learning_rates_are_an_error(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path)]) == 2
    assert "steps.csv: expected a table of steps, found no file" in capsys.readouterr().err
