"""NSCL between floor and ceiling along a factor: against values computed by hand."""

import pandas as pd
import pytest
import reproduction_families as families
import reproduction_trends as trends
from reproduction_statistics import paired

POINTS = (0.1, 1.0)
CHANGES = {"nscl": 0.2, "cl_moved": 0.1, "cl_other": -0.1}


def told(**changes: float) -> pd.DataFrame:
    """The last epoch of three seeds: an arm changes by this much between the points, and a bit by seed."""
    start = {"nscl": 0.5, "cl_moved": 0.55, "cl_other": 0.3}
    rows = [
        (point, seed, 1, "cl", arm, score, start[arm] + (0.01 + 0.001 * place) * seed + (place * change))
        for arm, change in changes.items()
        for place, point in enumerate(POINTS)
        for seed in range(3)
        for score in trends.SCORES
    ]
    return pd.DataFrame(rows, columns=["temperature", "seed", "epoch", "reference", "arm", "score", "value"])


def test_a_change_is_compared_with_those_of_floor_and_ceiling() -> None:
    """Within a seed. A change that the floor has too is not beyond it."""

    def short(**changes: float) -> str:
        return trends.trend(told(**changes), "temperature", "then").summary.split("; differing")[0]

    every = ", ".join(f"{score} rises" for score in trends.SCORES)
    beyond = "NSCL's change minus the"
    assert short(nscl=0.2) == f"then: {every}"
    assert short(**CHANGES) == (
        f"then: {every}; {beyond} floor's is beyond the interval in CKA (+0.100), RSA (+0.100) and weight gap (+0.100);"
        f" {beyond} ceiling's is beyond the interval in CKA (+0.300), RSA (+0.300) and weight gap (+0.300)"
    )
    assert short(nscl=0.2, cl_moved=0.2) == f"then: {every}; {beyond} floor's is beyond the interval in no score"
    assert short(nscl=-0.001).startswith("then: CKA does not change beyond the interval, ")
    values = told(**CHANGES)
    last, first = (values[values["temperature"] == point].set_index(["arm", "score", "seed"]) for point in POINTS[::-1])
    change = (last["value"] - first["value"])[:, "CKA"]
    (sentence,) = (
        s for s in trends.trend(values, "temperature", "then").sentences if s.startswith(f"{beyond} floor's")
    )
    assert sentence.startswith(f"{beyond} floor's: CKA {paired(list(change['nscl'] - change['cl_moved'])).text()}, RSA")


def test_each_point_has_the_differences_from_floor_and_ceiling() -> None:
    """Within a seed, with interval and effect size."""
    values = told(**CHANGES)
    answer = trends.trend(values, "temperature", "then")
    table = answer.tables[trends.APART]
    assert [list(row) for row in table[["temperature", "score"]].to_numpy()] == [
        [point, score] for point in POINTS for score in trends.SCORES
    ]
    last = values[(values["temperature"] == 1.0) & (values["score"] == "CKA")]
    arms = last.pivot(index="seed", columns="arm", values="value")
    row = table.iloc[3]
    assert [row["floor"], row["nscl"], row["ceiling"]] == [
        f"{arms[arm].mean():.3f}" for arm in ("cl_moved", "nscl", "cl_other")
    ]
    assert row["nscl minus floor"] == paired(list(arms["nscl"] - arms["cl_moved"])).text()
    assert row["nscl minus ceiling"] == paired(list(arms["nscl"] - arms["cl_other"])).text()
    assert answer.summary.endswith(
        "differing (CKA/RSA/weight gap) at, of 2 points: NSCL from the floor 2/2/2, NSCL from the ceiling 2/2/2,"
        " floor from the ceiling 2/2/2"
    )
    assert answer.sentences[-1].startswith(
        "differing beyond the interval: NSCL from the floor in CKA (at 0.1, 1.0), RSA"
    )


def test_equal_arms_do_not_differ() -> None:
    """Nor does an arm with one seed, and a missing arm has no comparison."""
    values = told(cl_moved=0.1)
    same = pd.concat([values, values.assign(arm="nscl")])
    assert "of 2 points: NSCL from the floor 0/0/0" in trends.trend(same, "temperature", "then").summary
    assert trends.trend(same, "temperature", "then").sentences[-1].endswith("NSCL from the floor in no score")
    one = told(**CHANGES).query("arm != 'cl_moved' or seed == 0")
    assert "NSCL from the floor 0/0/0, NSCL from the ceiling 2/2/2" in trends.trend(one, "temperature", "then").summary
    alone = trends.trend(told(nscl=0.2), "temperature", "then")
    assert "differing" not in " ".join([alone.summary, *alone.sentences])
    assert trends.APART not in alone.tables


def test_a_case_without_nscl_adds_nothing_to_the_verdict_of_another() -> None:
    values = pd.concat([told(**CHANGES).assign(rule="a"), told(cl_moved=0.1, cl_other=0.2).assign(rule="b")])
    alone = trends.trend(values[values["rule"] == "a"], "temperature", "then", ["rule"])
    assert trends.trend(values, "temperature", "then", ["rule"]).summary == alone.summary


def test_one_point_is_no_trend() -> None:
    """A floor that was measured at one point has a comparison there, and no change."""
    values = told(**CHANGES).query("arm != 'cl_moved' or temperature == 0.1")
    answer = trends.trend(values, "temperature", "then")
    assert not any(sentence.startswith("floor:") for sentence in answer.sentences)
    assert "minus the floor's" not in answer.summary
    assert "NSCL from the floor 1/1/1, NSCL from the ceiling 2/2/2" in answer.summary
    assert list(answer.tables[trends.APART]["nscl minus floor"].eq("")) == [False] * 3 + [True] * 3


def bridge(moved: float) -> pd.DataFrame:
    """Scores of one epoch, where all but `share_5` are `moved` from the floor."""
    names = ("nscl", "share_0", "share_5", "noise_90", "groups_2", "cl_moved", "cl_other")
    base = dict.fromkeys(names, 0.5 + moved) | {"share_5": 0.5, "cl_moved": 0.5, "cl_other": 0.3}
    rows = [
        (seed, 1, "cl", arm, score, value + 0.001 * place * off)
        for seed, off in enumerate((-2, -1, 1, 2))
        for place, (arm, value) in enumerate(base.items())
        for score in trends.SCORES
    ]
    return pd.DataFrame(rows, columns=["seed", "epoch", "reference", "arm", "score", "value"])


def test_the_labels_at_which_nscl_differs_from_the_floor_are_named() -> None:
    """Against the differences within a seed."""
    values = bridge(moved=0.4)
    answer = families.bridge(values)
    named = "share of known labels (%) at 100, noisy labels (%) at 0, 90, groups of classes at 2, 10"  # share 0 is CL
    assert answer.summary.endswith(f"; differing from the floor beyond the interval: CKA: {named}; weight gap: {named}")
    everything = named.replace("at 100", "at 5, 100")
    ends = f"differing beyond the interval from the floor: {named}; from the ceiling: {everything}"
    assert [sentence.endswith(ends) for sentence in answer.sentences].count(True) == 3
    arms = values[values["score"] == "CKA"].pivot(index="seed", columns="arm", values="value")
    width = paired(list(arms["cl_moved"] - arms["cl_other"])).text()
    floor, ceiling = arms["cl_moved"].mean(), arms["cl_other"].mean()
    assert any(
        sentence.startswith(f"CKA: floor {floor:.3f}, ceiling {ceiling:.3f}, floor minus ceiling {width}")
        for sentence in answer.sentences
    )
    assert families.bridge(bridge(moved=0.0)).summary.endswith("beyond the interval: CKA: none; weight gap: none")
    without = families.bridge(values.query("arm != 'cl_moved'"))
    assert "floor" not in " ".join([without.summary, *without.sentences])


def test_the_floor_of_the_labels_is_a_line() -> None:
    figure = families.draw_bridge(bridge(moved=0.1))
    levels = [line.get_ydata()[0] for line in figure.axes[0].lines[-2:]]
    assert levels == pytest.approx([0.5, 0.3], abs=0.02)
    assert "floor" in figure.legends[0].get_texts()[-2].get_text()
