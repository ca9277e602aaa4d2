"""losses: the values against loops over anchors, equal inputs for all arms, the inequality, and the tables derived from
it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from math import exp, log
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from coupled.analysis import losses
from coupled.analysis.losses import batches_of, main
from coupled.analysis.representations.embeddings import Embedder, choose_images, load_sample
from coupled.analysis.representations.features import view_features
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import read_table
from coupled.analysis.theory.loss_sums import LOSSES, LossSums, ViolatedBoundError, gap_of_batch
from coupled.analysis.theory.loss_tables import correlation, reached, write_what_follows
from coupled.objectives import Inputs
from coupled.objectives._anchors import AnchorLosses

NewRun = Callable[..., Path]


def inputs(views_VBP: Tensor, labels_B: Tensor) -> Inputs:
    projections = {"projection": normalize(views_VBP.double(), dim=-1)}
    return Inputs(projections, projections, labels_B, labels_B)


def gap_by_hand(views_VBP: Tensor, labels_B: Tensor, tau: float) -> tuple[float, float]:
    """DCL - NSCL and its bound, mean over anchors with a negative in both, from their definitions."""
    V, B, _ = views_VBP.shape
    z = normalize(views_VBP.double(), dim=-1).flatten(0, 1)
    gaps, bounds = [], []
    for i in range(V * B):
        others = [a for a in range(V * B) if a % B != i % B]
        apart = [a for a in others if labels_B[a % B] != labels_B[i % B]]
        if apart:
            both = (log(sum(exp(float(z[i] @ z[a]) / tau) for a in each)) for each in (others, apart))
            gaps.append(next(both) - next(both))
            n = int((labels_B == labels_B[i % B]).sum())
            bounds.append(log(1 + (n - 1) * exp(2 / tau) / (B - n)))
    return sum(gaps) / len(gaps), sum(bounds) / len(bounds)


@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.5, 1.0, 3.0]), st.integers(2, 4))
def test_the_gap_equals_its_definition_and_is_within_its_bound(seed: int, tau: float, classes: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    views, labels = torch.randn(2, 9, 3, generator=rng), torch.randint(classes, (9,), generator=rng)
    labels[:2] = torch.tensor([0, 1])
    sums = LossSums([tau])
    sums.update(inputs(views, labels))
    found = sums.gap(tau, 5, 50)
    assert (found.gap, found.bound) == pytest.approx(gap_by_hand(views, labels, tau), rel=1e-9, abs=1e-12)
    assert found.set_bound == pytest.approx(log(1 + exp(2 / tau) / 9), rel=1e-12)
    assert found.tightness == pytest.approx(found.tightest, nan_ok=True)


def test_the_bound_is_reached_by_the_worst_batch() -> None:
    """One class at one point, the other opposite: the gap equals the bound."""
    views = torch.tensor([[1.0, 0.0]] * 3 + [[-1.0, 0.0]] * 4).expand(2, 7, 2)
    sums = LossSums([0.5])
    sums.update(inputs(views, torch.tensor([0] * 3 + [1] * 4)))
    assert sums.gap(0.5, 1, 2).tightness == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("wrong", [-0.01, 7.0, float("nan")])
def test_a_violation_on_a_single_anchor_is_an_error(wrong: float) -> None:
    """The mean over a batch would hide it."""
    batch = inputs(torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 1]))
    zero_A, counted_A = torch.zeros(8, dtype=torch.float64), torch.ones(8, dtype=torch.bool)
    gap_of_batch(batch, AnchorLosses(zero_A, counted_A), AnchorLosses(zero_A, counted_A), 0.5)
    one_A = zero_A.index_fill(0, torch.tensor([3]), wrong)
    with pytest.raises(ViolatedBoundError, match=r"at temperature 0\.5 is .*, expected 0 to"):
        gap_of_batch(batch, AnchorLosses(one_A, counted_A), AnchorLosses(zero_A, counted_A), 0.5)


def test_means_are_over_anchors_and_skipped_anchors_are_counted() -> None:
    """A batch of one class has no NSCL; every other batch is weighted by its number of anchors."""
    rng = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 4, 3, generator=rng), torch.randn(2, 4, 3, generator=rng)
    whole, parts = LossSums([1.0]), [LossSums([1.0]), LossSums([1.0])]
    given_ = [inputs(first, torch.tensor([0, 0, 0, 1])), inputs(second, torch.tensor([2, 2, 2, 2]))]
    for batch, part in zip(given_, parts, strict=True):
        whole.update(batch)
        part.update(batch)
    total = whole.losses["nscl", 1.0]
    assert (total.counted, total.skipped_anchors) == (8, 8)
    assert total.mean == parts[0].losses["nscl", 1.0].mean
    assert whole.gap(1.0, 3, 8) == parts[0].gap(1.0, 3, 8)
    halves = [part.losses["dcl", 1.0].mean for part in parts]
    assert whole.losses["dcl", 1.0].mean == pytest.approx(sum(halves) / 2, rel=1e-12)
    whole.update(given_[1])
    assert (total.counted, total.skipped_anchors) == (8, 16)


def test_the_tightest_batch_has_the_highest_share_of_its_bound() -> None:
    worst = inputs(torch.tensor([[1.0, 0.0]] * 2 + [[-1.0, 0.0]] * 2).expand(2, 4, 2), torch.tensor([0, 0, 1, 1]))
    other = inputs(torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 0, 1, 1]))
    sums = LossSums([1.0])
    sums.update(worst)
    sums.update(other)
    found = sums.gap(1.0, 2, 4)
    assert found.tightest == pytest.approx(1, rel=1e-12)
    assert found.tightness < 0.9


def test_rows_hold_the_losses_on_the_views_of_the_run(drifting_run: Path, tmp_path: Path) -> None:
    """Arms, epochs, splits and temperatures must not be mixed up; arms with equal weights have equal bits."""
    few = ["--num-images", "130", "--epochs", "0,2"]
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path), *few]) == 0
    table, gaps = pd.read_csv(tmp_path / "losses.csv"), pd.read_csv(tmp_path / "loss_gap.csv")
    assert tuple(table.columns) == SCHEMAS["losses.csv"].columns
    assert tuple(gaps.columns) == SCHEMAS["loss_gap.csv"].columns
    assert len(table) == 2 * 2 * 4 * len(LOSSES) * 2
    assert set(table["temperature"]) == {0.5, 1.0}
    assert table[table["epoch"] == 0].groupby(["split", "loss", "temperature"])["value"].nunique().eq(1).all()
    embedder = Embedder(open_run(drifting_run), torch.device("cpu"))
    images = embedder.run.images("test")
    chosen_N = choose_images(len(images), 130, embedder.settings.seed, "test")
    seen = batches_of(embedder.settings, load_sample(embedder.run, "test", 130, False))
    assert seen.source("0123456789abcdef")[:3] == (130, 64, "0123456789abcdef")
    assert set(seen.order_KG.flat) < set(chosen_N.tolist())
    views_VND = view_features(embedder, images, torch.from_numpy(seen.order_KG.ravel()), "scl", 2)["z"]
    sums = LossSums([1.0])
    for views_VBD, order_B in zip(views_VND.split(64, dim=1), seen.order_KG, strict=True):
        sums.update(inputs(views_VBD, images.labels_N[order_B]))
    own = table.query("epoch == 2 and split == 'test' and arm == 'scl' and temperature == 1").set_index("loss")
    for loss in LOSSES:
        assert own.loc[loss, "value"] == pytest.approx(sums.losses[loss, 1.0].mean, abs=1e-6)
    row = gaps.query("epoch == 2 and split == 'test' and arm == 'scl' and temperature == 1").iloc[0]
    assert row["gap"] == pytest.approx(own.loc["dcl", "value"] - own.loc["nscl", "value"], abs=1e-9)
    assert row["gap"] == pytest.approx(sums.gap(1.0, seen.largest_class, 130).gap, abs=1e-6)
    assert row["set_bound"] == sums.gap(1.0, seen.largest_class, 130).set_bound
    assert 0 < row["tightness"] <= row["tightest"] <= 1


def test_one_pass_serves_all_arms_and_only_missing_rows_are_computed(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One more temperature costs one more pass for each epoch; a repeated call costs none."""
    run = new_run(epochs=(0, 1))
    passes: list[int] = []
    real = losses.batches
    monkeypatch.setattr(losses, "batches", lambda *a, **k: passes.append(1) or real(*a, **k))  # type: ignore[func-returns-value]
    base = ["--run-dir", str(run), "--num-images", "64", "--split", "test", "--temperatures", "0.5"]
    assert main([*base, "--arms", "cl", "--epochs", "0"]) == 0
    before = (run / "analysis/losses.csv").read_bytes()
    assert main(base) == 0
    assert len(passes) == 1 + 2
    assert main([*base, "1"]) == 0
    assert main([*base, "1"]) == 0
    assert len(passes) == 1 + 2 + 2
    assert (run / "analysis/losses.csv").read_bytes().startswith(before)
    assert "losses.csv: 0 new rows, 64 in all" in capsys.readouterr().out


def test_missing_rows_of_the_gap_table_are_added(drifting_run: Path, tmp_path: Path) -> None:
    """A call that was killed between the two tables wrote the losses but not the gap."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--num-images", "64", "--split", "test"]
    base += ["--arms", "cl", "ce", "--epochs", "1", "--temperatures", "1"]
    assert main(base) == 0
    gaps = tmp_path / "loss_gap.csv"
    whole = gaps.read_text()
    gaps.write_text("".join(whole.splitlines(keepends=True)[:2]))
    assert main(base) == 0
    assert gaps.read_text() == whole


@pytest.mark.parametrize("changed", [{"label_fraction": 0.5}, {"label_noise": 0.5}, {"label_groups": 2}], ids=str)
def test_the_direct_arm_is_the_one_that_minimises_nscl_of_the_true_labels(
    new_run: NewRun, changed: dict[str, float]
) -> None:
    """Whatever its name. An arm that sees other labels minimises another loss than the one that is compared."""
    run = new_run(epochs=(0, 1))
    about = json.loads((run / "run.json").read_text())
    arms = about["settings"]["arms"]
    arms["ce"], arms["nscl"], arms["scl"] = arms["nscl"], arms["cl"], {**arms["nscl"], **changed}
    (run / "run.json").write_text(json.dumps(about))
    base = ["--run-dir", str(run), "--num-images", "64", "--split", "test", "--temperatures", "1"]
    assert main([*base, "--arms", "cl", "nscl", "scl", "ce"]) == 0
    reached = pd.read_csv(run / "analysis/nscl_reached.csv")
    assert set(reached["direct_arm"]) == {"ce"}
    assert set(reached["arm"]) == {"cl", "nscl", "scl"}


def losses_of(folder: Path, values: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Path:
    """A losses.csv of these arms' DCL and NSCL losses at epochs 0, 1, ..."""
    rows = [
        (epoch, "test", arm, loss, 1.0, value, 0, 8, 4, "new", "i")
        for arm, both in values.items()
        for loss, each in zip(("dcl", "nscl"), both, strict=True)
        for epoch, value in enumerate(each)
    ]
    pd.DataFrame(rows, columns=list(SCHEMAS["losses.csv"].columns)).to_csv(folder / "losses.csv", index=False)
    return folder / "losses.csv"


def test_undefined_shares_and_correlations_are_empty(tmp_path: Path) -> None:
    """A direct arm whose loss did not fall has no descent; two points or a constant loss have no correlation."""
    falls: Sequence[float] = [4, 3, 2, 1]
    path = losses_of(tmp_path, {"cl": (falls, falls), "direct": (falls, [4, 5, 4, 3])})
    of_cl = reached(read_table(path), ["direct"]).query("arm == 'cl'")
    assert of_cl["share"].isna().tolist() == [True, True, True, False]
    assert of_cl["share"].iloc[-1] == 3
    path = losses_of(
        tmp_path, {"two": (falls[:2], falls[:2]), "three": (falls[:3], falls[:3]), "still": ([0.1] * 3, falls[:3])}
    )
    found = correlation(read_table(path)).set_index("arm")["correlation"]
    assert found["three"] == pytest.approx(1)
    assert found[["two", "still"]].isna().all()


def test_correlation_and_share_of_descent_have_known_values(tmp_path: Path) -> None:
    """Correlation 1 for losses that fall together; the share of the direct arm's descent that another arm has made."""
    values = {"cl": ([5, 4, 3], [4.5, 3.0, 2.5]), "nscl": ([5, 4.5, 4], [4.0, 3.0, 2.0])}
    path = losses_of(tmp_path, values)
    write_what_follows(path, ["nscl"])
    found = pd.read_csv(tmp_path / "loss_correlation.csv").set_index("arm")
    assert found.loc["nscl", "correlation"] == pytest.approx(1)
    assert found.loc["cl", "correlation"] == pytest.approx(0.960769, abs=1e-6)
    of_cl = pd.read_csv(tmp_path / "nscl_reached.csv")
    assert set(of_cl["arm"]) == {"cl"}
    assert of_cl["epoch"].tolist() == [0, 1, 2]
    assert of_cl["excess"].tolist() == [0.5, 0, 0.5]
    assert of_cl["share"].tolist()[1:] == [1.5, 1]
    assert of_cl["share"].isna().tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--temperatures", "0"], "argument --temperatures: got '0'; a number above 0 is allowed"),
        (["--arms", "byol"], "--arms: the run has no arm 'byol' (arms: cl, nscl, scl, ce)"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    drifting_run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert main(["--run-dir", str(drifting_run), *arguments]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1


def test_rows_of_other_snapshots_are_computed_again(new_run: NewRun) -> None:
    """A run that continued from an older checkpoint has other weights under the same name."""
    run = new_run(epochs=(0, 1))
    base = ["--run-dir", str(run), "--num-images", "64", "--split", "test", "--temperatures", "1"]
    base += ["--arms", "cl", "nscl"]
    assert main(base) == 0
    path = run / "analysis/losses.csv"
    rows = path.read_text().splitlines()
    digest = rows[1].split(",")[SCHEMAS["losses.csv"].columns.index("arm_digest")]
    path.write_text("\n".join([rows[0], *(row.replace(digest, "0" * len(digest)) for row in rows[1:])]) + "\n")
    assert main(base) == 0
    table = pd.read_csv(path, dtype=str)
    assert {"0" * len(digest), digest} <= set(table["arm_digest"])
    assert len(table) == len(rows) - 1 + sum(digest in row for row in rows[1:])
