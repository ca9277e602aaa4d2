"""Answers of the claims for values with known results."""

import numpy as np
import pandas as pd
import pytest
import reproduction_claims as claims
import reproduction_families as families
import reproduction_objectives as objectives
import reproduction_statistics as statistics
import reproduction_theory as theory
from scipy import stats
from support.reproduction_values import SEEDS, score, values_of


def test_paired_intervals_are_those_of_a_t_test() -> None:
    one, other = [0.8, 0.7, 0.9, 0.85], [0.7, 0.65, 0.7, 0.8]
    told = statistics.paired(list(np.subtract(one, other)))
    low, high = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (told.low, told.high) == pytest.approx((low, high))
    assert told.direction() == 0
    assert statistics.paired([0.1, 0.11]).direction() == -statistics.paired([-0.1, -0.11]).direction() == 1
    assert statistics.paired([-0.3]).direction() == 0  # one seed shows nothing


@pytest.mark.parametrize(("effect", "count"), [(0.0, 3), (0.5, 5), (-2.0, 3), (3.0, 4)])
def test_the_interval_of_an_effect_size_inverts_the_noncentral_t(effect: float, count: int) -> None:
    """Against SciPy, which fails for larger t."""
    low, high = statistics.effect_interval(effect, count)
    root = np.sqrt(count)
    assert stats.nct.cdf(effect * root, count - 1, low * root) == pytest.approx(0.975, abs=2e-3)
    assert stats.nct.cdf(effect * root, count - 1, high * root) == pytest.approx(0.025, abs=2e-3)


def test_large_effects_have_an_interval() -> None:
    low, high = statistics.effect_interval(100.0, 3)
    assert 0 < low < 100 < high


def test_cells_have_two_digits_of_the_deviation_and_none_of_zero() -> None:
    told = [
        statistics.cell(m, s) for m, s in ((0.8123, 0.0402), (67.71, 3.92), (2.127, 0.0), (1.0, 2e-7), (0.5, np.nan))
    ]
    assert told == ["0.812 +- 0.040", "67.7 +- 3.9", "2.13", "1.00000", "0.5"]


def test_rows_are_in_their_natural_order() -> None:
    """5, 10, 0, 25 was the order of an earlier page."""
    table = pd.DataFrame(
        {"path": "share", "labels": [5, 10, 0, 25], "score": "CKA", "mean": 0.5, "sd": 0.1, "seeds": 3}
    )
    assert statistics.wide(table)["labels"].tolist() == ["0", "5", "10", "25"]


def test_the_last_epoch_is_that_of_each_length_of_training() -> None:
    rows = [score("CKA", e, epoch=e, epochs=n) for n in (10, 40) for e in (5, 10, 40) if e <= n]
    assert sorted(statistics.last(values_of(*rows))["value"].unique()) == [10, 40]


def trends(*values: float) -> pd.DataFrame:
    """CKA and RSA at the temperatures .1, .5, 1, with seeds that differ by .1, and a constant weight gap."""
    given = []
    for t, value in zip((0.1, 0.5, 1.0), values, strict=True):
        noisy = lambda seed, value=value, t=t: value + 0.1 * seed + 0.01 * t * seed  # noqa: E731
        given += [score("CKA", noisy, temperature=t), score("RSA", -t, temperature=t)]
        given += [score("weight gap", lambda seed, t=t: 0.3 + (t > 0.5) * (0.1 * seed - 0.1), temperature=t)]
    return values_of(*given)


def test_trends_are_differences_within_a_seed() -> None:
    """Seeds differ by .1, more than the temperatures do; within a seed the difference is nearly constant."""
    answer = claims.temperature(trends(0.70, 0.72, 0.75))
    cka, rsa, gap = answer.sentences
    assert cka.startswith("CKA rises as the temperature rises: 0.801 to 0.860, +0.059")
    assert "up at every step in 3 of 3 seeds, down at every step in 0" in cka
    assert rsa.startswith("RSA falls")
    assert gap.startswith("weight gap does not change beyond the interval")
    assert "CKA rises, RSA falls, weight gap does not change beyond the interval" in answer.summary


def test_classes_are_compared_early_and_late() -> None:
    """Alignment falls with the number of classes after epoch 2 and rises after the last. Epoch 3 is ignored."""
    given = []
    for classes in (2, 10, 100):
        for name in ("CKA", "RSA", "weight gap"):
            late = classes / 200
            given += [score(name, v, epoch=e, **{"dataset.classes": classes}) for e, v in ((2, 1 - late), (3, 0.0))]
            given.append(score(name, late, epoch=20, **{"dataset.classes": classes}))
    sentences = claims.classes(values_of(*given)).sentences
    assert "epoch 2: CKA falls as the number of classes grows: 0.990 to 0.500" in sentences[0]
    assert "epoch 20: CKA rises as the number of classes grows: 0.010 to 0.500" in sentences[3]


def test_growth_reports_fit_early_share_floor_and_ceiling() -> None:
    given = [
        score("rmse of a saturating curve", lambda seed: 0.1 if seed else 0.3, epoch=None),
        score("rmse of an exponential", 0.2, epoch=None),
    ]
    for arm, early, late in (("nscl", 0.2, 0.8), ("cl_moved", 0.1, 0.4), ("cl_other", 0.9, 1.0)):
        given += [score("weight gap", early, arm=arm, epoch=5), score("weight gap", late, arm=arm)]
        given += [score("CKA", 1 - late, arm=arm), score("CKA", 1 - early, arm=arm, epoch=5)]
    answer = claims.growth(values_of(*given))
    told = "; ".join(answer.sentences)
    assert "better than an exponential in 2 of 3 seeds" in told
    assert "nscl's gap is 25 % of its last value" in told
    assert "gives a gap of 0.400, 50 % of nscl's; nscl's gap minus the floor is +0.400" in told
    assert answer.summary.startswith(
        "NSCL's gap ends above the floor and its CKA below the floor and above the ceiling"
    )


def test_what_sharing_buys_is_a_difference_within_a_seed() -> None:
    given = []
    for arm, lost in (("nscl", 0.0), ("nscl_init", 0.5), ("nscl_order", 0.1), ("nscl_views", 0.0)):
        for name in (*claims.SCORES, "global weight gap"):
            noisy = 0.2 if arm == "nscl_views" else 0.0
            given.append(score(name, lambda seed, n=noisy, x=lost: 0.3 + 0.1 * seed + x + n * (seed - 1), arm=arm))
    answer = claims.shared_source(values_of(*given))
    assert answer.sentences[0].endswith("interval with: unshared init (+0.500), unshared order (+0.100)")
    assert answer.tables[""]["shares"].tolist() == list(claims.SOURCES.values())


def loss_values(power: float, bound: float) -> pd.DataFrame:
    given = []
    for classes in (2, 11, 101):
        case = {"arm": "cl", "dataset.classes": classes}
        for epoch in (0, 20):
            given.append(score(theory.DIFFERENCE, 0.8 * (classes - 1) ** power, epoch=epoch, **case))
            given.append(score(theory.BATCHES, bound, epoch=epoch, **case))
            given.append(score(theory.SET, np.log1p(np.e**2 / (classes - 1)), epoch=epoch, **case))
        given.append(score(theory.CORRELATION, 0.9, epoch=None, **case))
    return values_of(*given)


@pytest.mark.parametrize(("power", "bound", "count"), [(-1.0, 2.0, 18), (-0.5, 0.1, 6)])
def test_the_loss_gap_is_fitted_against_the_number_of_other_classes(power: float, bound: float, count: int) -> None:
    """log .8 = -.223 is the intercept. A violated bound of a batch is counted over all epochs and runs."""
    answer = theory.loss_gap(loss_values(power, bound))
    fit = answer.tables["Fits"].set_index("fit of the logarithms")
    row = fit.loc["DCL - NSCL against C - 1"]
    assert row["slope"].startswith(f"{power:.2f} (")
    assert row["intercept"].startswith("-0.22 (")
    assert (row["R^2"], row["seeds"]) == ("1.0000", "3")
    assert f"below the bound of its batches in {count} of 18 epochs x runs" in "; ".join(answer.sentences)


def test_the_fit_of_the_published_loss_gaps_is_that_of_scipy() -> None:
    slope = stats.linregress(np.log([1, 9, 19, 99]), np.log([0.80, 0.148, 0.076, 0.0117])).slope
    fit = theory.fits(loss_values(-1.0, 2.0)).set_index("fit of the logarithms")
    assert fit.loc["published values against C - 1", "slope"] == f"{slope:.2f}"


def test_few_shot_bounds_count_only_where_they_are_not_vacuous() -> None:
    """A bound is vacuous from 1/2 between two classes and from 1 among ten, for each arm, shots and seed."""
    given = []
    for task, shots, measured, bounds in (
        ("all", 1, 0.5, (2.0, 0.4)),
        ("all", 5, 0.2, (0.9, 0.3)),
        ("two_way", 1, 0.1, (0.5, 0.499)),
        ("two_way", 5, 0.1, (0.79, 0.05)),
    ):
        case = {"arm": "cl", "task": task, "shots": shots}
        given += [score(name, value, **case) for name, value in zip(theory.BOUNDS, bounds, strict=True)]
        given.append(score(theory.ERROR, measured, **case))
    table = theory.few_shot(values_of(*given)).tables[theory.COUNTS]
    told = table.set_index(["bound", "task"])[["not vacuous", "of these, holds"]]
    assert told.loc[("proposition_1", "among ten classes")].tolist() == ["3 of 6", "3 of 3"]
    assert told.loc[("proposition_1", "between two classes")].tolist() == ["0 of 6", "0 of 0"]
    assert told.loc[("documented_form", "between two classes")].tolist() == ["6 of 6", "3 of 6"]


def test_the_rank_of_a_dual_pair_among_all_pairs_is_reported() -> None:
    """The dual pair is second of three pairs without labels. A pair with labels is not ranked."""
    cka = {("vicreg_exp", "vicreg_ctr"): 0.7, ("spectral", "barlow"): 0.6, ("cl", "simclr"): 0.8, ("cl", "nscl"): 0.9}
    given = [score("CKA", value, reference=a, arm=b) for (a, b), value in cka.items()]
    given += [score("CKA", 0.99, reference="cl", arm="simclr", epoch=0), score("nearest centre", 0.5, arm="cl")]
    told = "; ".join(objectives.duality(values_of(*given)).sentences)
    assert "CKA of vicreg_exp and vicreg_ctr is 0.700, rank 2 of 3 pairs (2, 2, 2 in the single seeds)" in told
    assert "the most similar pair is cl and simclr (0.800); the mean of all pairs is 0.700" in told


def test_collapsed_arms_are_counted_by_seed_and_weight_decay() -> None:
    case = {objectives.DECAY: 0.0}
    given = [
        score("spread of z", lambda seed: 0.01 if seed else 0.9, arm="byol_own", **case),
        score("spread of z", 0.001, arm="byol_own", epoch=1, **case),
        score("spread of z", 0.9, arm="byol", **case),
    ]
    given += [score("W aligned with F", 0.2 * j, arm="byol", component=j, epoch=1, **case) for j in (1, 2)]
    given += [score("W aligned with F", 0.9, arm="byol", component=j, **case) for j in (1, 2)]
    sentences = objectives.directpred(values_of(*given)).sentences
    assert sentences[0] == "collapsed arms (spread of z below 0.05): byol_own with weight decay 0 in 2 of 3 seeds"
    assert "is 0.30 after the first epoch and 0.90 after the last" in sentences[1]
    assert sentences[2] == "the smallest spread of z is 0.010: byol_own with weight decay 0 in seed 1"


def test_the_better_form_of_supcon_is_a_difference_within_a_seed() -> None:
    probe = {"out": 0.8, "in": lambda seed: 0.7 + 0.07 * seed, "out_1": 0.5, "out_3": 0.6, "out_5": 0.7, "ce": 0.9}
    given = [score("linear probe", value, arm=arm, reference=None) for arm, value in probe.items()]
    given.append(score("CKA", 0.5, reference="out", arm="in"))
    answer = objectives.supcon(values_of(*given))
    assert "in 2 of 3 seeds (means 0.800 and 0.770), difference +0.030" in answer.sentences[0]
    assert (
        "by number of positives: 0.500 (1), 0.600 (3), 0.700 (5), 0.800 (all); 5 minus 1: +0.200" in answer.sentences[1]
    )
    assert answer.sentences[2] == "the linear probe of `out` minus that of ce: -0.100 (-0.100 to -0.100)"
    assert answer.summary == (
        "in the linear probe `out` is not distinguishable from `in` and worse than ce, and 5 positives are better than"
        " 1"
    )


def test_classifiers_are_compared_with_the_noise_floor() -> None:
    given = []
    for name in families.CLASSIFIERS:
        for arm, value in (("nscl", 0.2), ("scl", 0.1), ("ce", 0.3), ("cl_moved", 0.2)):
            given.append(score(name, lambda seed, v=value: v + seed / 10, arm=arm, epoch=20))
    answer = families.classifiers(values_of(*given))
    assert "mCE: the smallest is that of scl in 3 of 3 seeds" in answer.sentences
    assert "mCE: scl minus ce, which the paper compares: -0.200 (-0.200 to -0.200)" in answer.sentences
    assert "and an mCE below that of ce; differs" in answer.summary
    assert "interval: nscl: none; scl: calibration error" in answer.summary
    assert "weight gap, weight gap with channels matched, lost accuracy between" in answer.summary  # one comma a name
    assert len(answer.tables[""]) == 4
    assert set(answer.tables[""]["seeds"]) == {str(len(SEEDS))}
