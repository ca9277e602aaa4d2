"""Answers of the claims for rows with known values, and the page against its CSV files."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reproduce
import reproduction_claims as claims
import reproduction_objectives as objectives

SEEDS = (0, 1, 2)


def rows_of(*given: dict) -> pd.DataFrame:
    """Rows as in sweep.csv, for three seeds. A value may be a function of the seed."""
    base = {
        "reference": "cl",
        "arm": "nscl",
        "module": "h",
        "split": "test",
        "epoch": 20,
        "aggregate": None,
        "num_images": 9,
    }
    rows = []
    for row in given:
        for seed in SEEDS:
            value = row["value"](seed) if callable(row["value"]) else row["value"]
            rows.append({**base, **row, "seed": seed, "run": f"{row.get('run', 'r')}{seed}", "value": value})
    return pd.DataFrame(rows)


def pair(metric: str, value: object, **more: object) -> dict:
    """A row of test_alignment.csv, or of weight_gap.csv for the metric `gap`."""
    place = (
        {"table": "weight_gap", "module": None, "aggregate": "mean"} if metric == "gap" else {"table": "test_alignment"}
    )
    return {**place, "metric": metric, "value": value, **more}


def test_means_and_deviations_are_those_over_seeds_of_the_last_epoch() -> None:
    own, other = pair("cka", lambda seed: 0.9 + 0.01 * seed), pair("cka", 0.1, reference="ce")
    rows = rows_of(own, other, pair("cka", 0.5, epoch=10))
    table = claims.over_seeds(claims.last(claims.scores(rows)), ["arm"])
    expected = [0.9, 0.91, 0.92]
    assert table[["mean", "sd", "seeds"]].to_numpy() == pytest.approx(
        np.array([[np.mean(expected), np.std(expected, ddof=1), 3]])
    )


@pytest.mark.parametrize(("scl", "count"), [(0.5, 3), (0.905, 2), (0.99, 0)])
def test_the_first_claim_counts_the_seeds_in_which_nscl_is_closest(scl: float, count: int) -> None:
    """A claim without support must be reported as such."""
    near = [pair(metric, lambda seed: 0.9 + 0.01 * seed) for metric in ("cka", "rsa")]
    far = [pair(metric, scl, arm="scl") for metric in ("cka", "rsa")]
    far += [pair(metric, 0.4, arm="ce") for metric in ("cka", "rsa")]
    gaps = [pair("gap", value, arm=arm) for arm, value in (("nscl", 0.3), ("scl", 0.4), ("ce", 0.2))]
    whole = [
        pair("gap", value, arm=arm, aggregate="global") for arm, value in (("nscl", 0.1), ("scl", 0.4), ("ce", 0.2))
    ]
    answer = claims.closest(rows_of(*near, *far, *gaps, *whole))
    margin, spread = 0.91 - scl, "within" if abs(0.91 - scl) < 0.02 else "beyond"
    said = f"in {count} of 3 seeds, with a mean margin of {margin:.3f} to the next arm ({spread} the spread)"
    assert f"CKA: nscl is above scl and ce {said}" in answer.verdict
    assert "; weight gap: nscl is below scl and ce in 0 of 3 seeds, with a mean margin of -0.100" in answer.verdict
    assert "global weight gap: nscl is below scl and ce in 3 of 3 seeds" in answer.verdict
    assert set(answer.table["score"]) == {"CKA", "RSA", "weight gap", "global weight gap"}


def test_rising_and_falling_scores_are_distinguished() -> None:
    given = [pair("cka", value, temperature=t, run=f"t{t}-") for t, value in ((0.1, 0.7), (0.5, 0.8), (1.0, 0.9))]
    given += [pair("rsa", -t, temperature=t, run=f"t{t}-") for t in (0.1, 0.5, 1.0)]
    given += [pair("gap", 0.1, temperature=t, run=f"t{t}-") for t in (0.1, 0.5, 1.0)]
    verdict = claims.temperature(rows_of(*given)).verdict
    assert "CKA rises as the temperature rises: 0.700 to 0.900 (up at every step in 3 of 3 seeds, down" in verdict
    assert "RSA falls as the temperature rises: -0.100 to -1.000 (up at every step in 0 of 3 seeds, down" in verdict


@pytest.mark.parametrize(("power", "bound", "count"), [(-1.0, 2.0, 9), (-0.5, 0.1, 3)])
def test_the_loss_gap_exponent_and_violated_bounds_are_reported(power: float, bound: float, count: int) -> None:
    given = []
    for classes in (2, 10, 100):
        common = {"table": "loss_gap", "arm": "cl", "dataset.classes": classes, "run": f"c{classes}-"}
        given.append({**common, "metric": "gap", "value": 0.8 * classes**power})
        given.append({**common, "metric": "bound", "value": bound})
        given.append({**common, "metric": "set_bound", "value": 2.0})
        given.append({**common, "table": "loss_correlation", "metric": "correlation", "value": 0.9})
    verdict = claims.loss_gap(rows_of(*given)).verdict
    assert f"C^{power:.2f}" in verdict
    assert f"DCL - NSCL is below the bound of its batches in {count} of 9 runs" in verdict


def test_shared_sources_are_compared_with_sharing_everything() -> None:
    arms = {"nscl": 0.9, "nscl_init": 0.4, "nscl_order": 0.7, "nscl_views": 0.85}
    given = [pair(metric, value, arm=arm) for arm, value in arms.items() for metric in ("cka", "rsa", "gap")]
    verdict = claims.shared_source(rows_of(*given)).verdict
    assert "CKA differs from sharing everything by 0.500 (unshared init), 0.200 (unshared order)" in verdict


def quality(arm: str, metric: str, variant: str, value: object, **more: object) -> dict:
    """A row of quality.csv."""
    return {"table": "quality", "arm": arm, "metric": metric, "variant": variant, "value": value, **more}


def test_the_rank_of_a_dual_pair_among_all_pairs_is_reported() -> None:
    """The dual pair is second of three pairs without labels. A pair with labels is not ranked."""
    cka = {("vicreg_exp", "vicreg_ctr"): 0.7, ("spectral", "barlow"): 0.6, ("cl", "simclr"): 0.8, ("cl", "nscl"): 0.9}
    given = [pair("cka", value, reference=a, arm=b) for (a, b), value in cka.items()]
    given += [pair("cka", 0.99, reference=a, arm=b, epoch=0) for a, b in cka]
    given.append(quality("cl", "nccc", "euclidean", 0.5))
    verdict = objectives.duality(rows_of(*given)).verdict
    assert "CKA of vicreg_exp and vicreg_ctr is 0.700, rank 2 of 3 pairs" in verdict
    assert "the most similar pair is cl and simclr (0.800); the mean of all pairs is 0.700" in verdict


def test_collapsed_arms_are_counted_by_seed_and_weight_decay() -> None:
    common = {"table": "collapse", "optimizer.weight_decay": 0.0, "variant": "unit_norm"}
    given = [
        {**common, "arm": "byol_own", "module": "z", "metric": "spread", "value": lambda seed: 0.01 if seed else 0.9},
        {**common, "arm": "byol_own", "module": "z", "metric": "spread", "value": 0.001, "epoch": 1},
        {**common, "arm": "byol", "module": "z", "metric": "spread", "value": 0.9},
    ]
    aligned = {**common, "arm": "byol", "module": "predictor", "metric": "eigenspace_alignment"}
    given += [{**aligned, "component": j, "value": 0.2 * j, "epoch": 1} for j in (1, 2)]
    given += [{**aligned, "component": j, "value": 0.9 if j < 6 else 0.0} for j in range(1, 9)]
    found = objectives.directpred(rows_of(*given))
    assert "collapsed arms (spread of z below 0.05): byol_own with weight decay 0 in 2 of 3 seeds;" in found.verdict
    assert "is 0.30 after the first epoch and 0.90 after the last" in found.verdict


def test_the_number_of_seeds_of_collapsed_arms_is_that_of_the_rows() -> None:
    """One arm has two seeds and the other one seed."""
    spread = {"table": "collapse", "optimizer.weight_decay": 0.0, "variant": "unit_norm", "module": "z"}
    spread |= {"metric": "spread"}
    rows = rows_of(
        {**spread, "arm": "byol", "value": lambda seed: 0.01 if seed == 0 else 0.9},
        {**spread, "arm": "byol_own", "value": 0.01},
        {**spread, "arm": "byol", "metric": "eigenspace_alignment", "component": 1, "value": 0.5, "epoch": 1},
    )
    rows = rows[(rows["seed"] == 0) | ((rows["seed"] == 1) & (rows["arm"] == "byol"))]
    verdict = objectives.directpred(rows).verdict
    assert "byol with weight decay 0 in 1 of 2 seeds, byol_own with weight decay 0 in 1 of 1 seeds;" in verdict


def test_the_better_form_of_supcon_is_counted_by_seed() -> None:
    probe = {"out": 0.8, "in": lambda seed: 0.7 + 0.07 * seed, "out_1": 0.5, "out_3": 0.6, "out_5": 0.7}
    given = [quality(arm, "linear_probe", "regularised", value) for arm, value in probe.items()]
    verdict = objectives.supcon(rows_of(*given)).verdict
    assert "in 2 of 3 seeds (means 0.800 and 0.770)" in verdict
    assert "by number of positives: 0.500 (1), 0.600 (3), 0.700 (5), 0.800 (all)" in verdict


def test_the_page_agrees_with_its_csv_files() -> None:
    """The tables are generated, not edited by hand."""
    page = reproduce.PAGE.read_text(encoding="utf-8")
    assert reproduce.filled(page, reproduce.RESULTS) == page
    assert all(f"<!-- claim {number} -->" in page for number in reproduce.CLAIMS)


def test_headings_are_the_titles_of_the_claims() -> None:
    """A title is a topic. The summary table links to the heading of each claim."""
    page = reproduce.PAGE.read_text(encoding="utf-8")
    for number, claim in reproduce.CLAIMS.items():
        heading = f"{number}. {claim.title}"
        assert f"\n## {heading}\n" in page
        anchor = re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        assert f"](#{anchor}) |" in page


def test_a_block_that_no_claim_fills_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no claim fills the block 'claim 99'"):
        reproduce.filled("<!-- claim 99 -->\nx\n<!-- end -->", tmp_path)


def test_every_sweep_of_a_claim_has_its_configuration() -> None:
    assert all((reproduce.CONFIGS / f"{name}.yaml").is_file() for name in reproduce.SWEEPS)


def test_a_change_within_the_spread_is_no_change_and_each_rule_is_reported() -> None:
    """Batch sizes under two rules. CKA rises beyond the spread under `sqrt` only. Seeds differ by .1."""
    given = []
    for rule, gain in (("sqrt", 0.5), ("none", 0.01)):
        for place, size in enumerate((64, 128, 256)):
            common = {"optimizer.lr_scaling": rule, "batch.size": size, "run": f"{rule}{size}-"}
            given.append(pair("cka", lambda seed, up=gain * place: 0.1 * seed + up, **common))
            given.append(pair("rsa", 0.5, **common))
    verdict = claims.batch_size(rows_of(*given)).verdict
    assert "sqrt: CKA rises as the batch size grows from 64 to 256: 0.100 to 1.100" in verdict
    assert (
        "none: CKA does not change beyond the spread as the batch size grows from 64 to 256: 0.100 to 0.120" in verdict
    )


def test_the_effect_of_classes_is_reported_early_and_late() -> None:
    """Alignment falls with the number of classes after epoch 2 and rises after the last. Epoch 3 is ignored."""
    given = []
    for classes in (2, 10, 100):
        common = {"dataset.classes": classes, "run": f"c{classes}-"}
        for metric in ("cka", "rsa"):
            late = classes / 200
            given += [pair(metric, v, epoch=e, **common) for e, v in ((2, 1 - late), (3, 0.0), (20, late))]
    verdict = claims.classes(rows_of(*given)).verdict
    assert "epoch 2: CKA falls as the number of classes grows from 2 to 100: 0.990 to 0.500" in verdict
    assert "epoch 20: CKA rises as the number of classes grows from 2 to 100: 0.010 to 0.500" in verdict


def test_growth_reports_the_better_fit_the_early_share_and_the_noise_floor() -> None:
    fits = {"table": "weight_gap_growth", "metric": "rmse"}
    given = [
        {**fits, "model": "saturation", "value": lambda seed: 0.1 if seed else 0.3},
        {**fits, "model": "exponential", "value": 0.2},
        *(pair("gap", value, epoch=epoch) for epoch, value in ((1, 0.1), (5, 0.2), (20, 0.8))),
        *(pair("gap", value, epoch=epoch, arm="cl_moved") for epoch, value in ((5, 0.7), (20, 0.4))),
        *(pair("cka", 0.9, epoch=epoch) for epoch in (1, 20)),
    ]
    verdict = claims.growth(rows_of(*given)).verdict
    assert "better than an exponential in 2 of 3 seeds" in verdict
    assert "is 25% of its last value" in verdict
    assert "a gap of 0.400, 50% of nscl's" in verdict


def test_valid_and_vacuous_few_shot_bounds_are_counted_separately() -> None:
    """A bound is vacuous from 1/2 between two classes and from 1 among all classes."""
    place = {"table": "bounds", "arm": "cl"}
    given = []
    for task, shots, measured, bounds in (
        ("all", 1, 0.5, (2.0, 0.4)),
        ("all", 5, 0.2, (0.9, 0.3)),
        ("two_way", 1, 0.1, (0.5, 0.499)),
        ("two_way", 5, 0.1, (0.79, 0.05)),
    ):
        for form, bound in zip(("proposition_1", "documented_form"), bounds, strict=True):
            common = {**place, "task": task, "shots": shots, "bound": form, "of": "nccc_error"}
            given.append({**common, "quantity": "value", "value": bound})
            given.append({**common, "quantity": "measured", "value": measured})
    answer = claims.few_shot(rows_of(*given))
    assert "proposition_1 holds in 4 of 4 cases and is vacuous in 3;" in answer.verdict
    assert "documented_form holds in 2 of 4 cases and is vacuous in 0" in answer.verdict
    cases = {("all", 1), ("all", 5), ("two_way", 1), ("two_way", 5)}
    assert set(zip(answer.table["task"], answer.table["shots"], strict=True)) == cases


def test_the_count_of_few_shot_bounds_agrees_with_its_table() -> None:
    """Counted by hand: only two values, `documented_form` at m = 100 between two classes, are below 1/2."""
    verdict = claims.few_shot_verdict(pd.read_csv(reproduce.RESULTS / "claim_7.csv"))
    verdicts = pd.read_csv(reproduce.RESULTS / "verdicts.csv", dtype=str).set_index("claim")["verdict"]
    assert verdicts["7"] == verdict
    assert verdict.endswith("documented_form holds in 16 of 16 cases and is vacuous in 14")
    assert verdict.startswith("proposition_1 holds in 16 of 16 cases and is vacuous in 16;")


def test_a_failed_sweep_does_not_change_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Claims computed from an incomplete sweep would be wrong."""
    page = tmp_path / "page.md"
    page.write_bytes(reproduce.PAGE.read_bytes())
    monkeypatch.setattr(reproduce, "PAGE", page)
    written: list[str] = []
    monkeypatch.setattr(reproduce, "write_results", lambda runs, sweeps: written.extend(sweeps))
    monkeypatch.setattr(reproduce.sweep, "main", lambda given: int("classes" in given[0]))
    assert reproduce.main(["--only", "classes", "epochs", "--runs-dir", str(tmp_path)]) == 1
    assert written == ["epochs"]
    assert "reproduce.py: classes failed; the page keeps the earlier results" in capsys.readouterr().err
    assert page.read_bytes() == reproduce.ROOT.joinpath("docs/reproduction.md").read_bytes()


def test_an_interrupted_sweep_ends_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After Ctrl-C no further sweep starts and the page is not written."""
    begun: list[str] = []
    monkeypatch.setattr(reproduce.sweep, "main", lambda given: (begun.append(Path(given[0]).stem), 130)[1])
    monkeypatch.setattr(reproduce, "PAGE", tmp_path / "there is none")
    assert reproduce.main(["--runs-dir", str(tmp_path), "--only", *reproduce.SWEEPS[:2]]) == 130
    assert begun == [reproduce.SWEEPS[0]]
    assert capsys.readouterr().err == ""
