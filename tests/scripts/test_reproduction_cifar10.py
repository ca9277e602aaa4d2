"""Distances over the whole of training, and the section on real images: against values computed by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reproduce
import reproduction_cifar10 as cifar10
import reproduction_distances as distances
import reproduction_page as page
import reproduction_values
import save_embeddings
from scipy import stats


def told(**changed: float) -> pd.DataFrame:
    """Values of two seeds and epochs 0 to 2. `changed` sets CKA of an arm in epoch 2 of seed 1."""
    base = {"nscl": 0.8, "scl": 0.7, "ce": 0.6, "cl_moved": 0.9, "cl_other": 0.4}
    rows = []
    for score in distances.NAMES:
        for seed in (0, 1):
            for epoch in (0, 1, 2):
                for arm, value in base.items():
                    chosen = changed.get(arm, value) if (score, seed, epoch) == ("CKA", 1, 2) else value
                    value = chosen if score in distances.SIMILARITIES else 1 - chosen
                    rows.append((seed, epoch, "cl", arm, score, value))
    return pd.DataFrame(rows, columns=["seed", "epoch", "reference", "arm", "score", "value"])


def test_epochs_in_which_nscl_is_not_nearest_are_counted_and_named() -> None:
    """Epoch 0 is not counted: all arms are equal there."""
    table = distances.nearest(told(scl=0.85)).set_index("score")
    assert table.loc["CKA"].tolist() == ["3 of 4", "1 of 2", "2"]
    for score in ("RSA", "weight gap", "global weight gap"):
        assert table.loc[score].tolist() == ["4 of 4", "2 of 2", "none"]


def test_sentences_state_the_whole_of_training_and_its_end() -> None:
    cka, end, *_ = distances.sentences(told(scl=0.85))
    assert cka.startswith(
        "CKA: of nscl, scl and ce, nscl is nearest to cl in 3 of 4 epochs x seeds, and in 1 of 2 seeds after the last"
    )
    assert "margin to the next arm, scl, is then +0.025 (" in cka
    assert end.startswith("CKA at the end: floor 0.900, nscl 0.800, ceiling 0.400; nscl minus floor -0.100")
    assert distances.summary(told(scl=0.85)).startswith(
        "Of NSCL, SCL and CE, NSCL ends nearest to CL beyond the interval in RSA, weight gap and global weight gap; it"
        " is the nearest of the three in, of all measured epochs and seeds: CKA 3 of 4"
    )


def test_a_verdict_says_which_arms_can_be_told_from_the_floor() -> None:
    """An arm that ends as far away as a moved weight shows nothing of its objective. Equal distances are no effect."""
    verdict = distances.summary(told(nscl=1.2))
    assert verdict.endswith(
        "differing from the floor beyond the interval: NSCL in RSA, weight gap and global weight gap, SCL in CKA, RSA,"
        " weight gap and global weight gap, CE in CKA, RSA, weight gap and global weight gap, the ceiling in CKA, RSA,"
        " weight gap and global weight gap"
    )
    equal = told().query("arm != 'nscl'")
    equal = pd.concat([equal, equal[equal["arm"] == "cl_moved"].assign(arm="nscl")])
    assert "interval: NSCL in no score, SCL in CKA" in distances.summary(equal)
    assert "floor" not in distances.summary(told().query("arm != 'cl_moved'"))


def test_sentences_count_where_nscl_is_farther_than_the_floor() -> None:
    """Over the whole of training: the end alone has three values."""
    ends = [sentence for sentence in distances.sentences(told(nscl=0.95)) if " at the end: " in sentence]
    assert [end.split("; ")[-2] for end in ends] == [
        "nscl is farther than the floor in 3 of 4 epochs x seeds",
        *["nscl is farther than the floor in 4 of 4 epochs x seeds"] * 3,
    ]


def test_sentences_count_in_how_many_epochs_sharing_changes_the_distance() -> None:
    """Over the whole of training. Equal values in one of two epochs leave one."""
    values = told()
    rows = (values["arm"] == distances.CEILING) & (values["epoch"] == 1) & (values["score"] == "CKA")
    floor = (values["arm"] == distances.FLOOR) & (values["epoch"] == 1) & (values["score"] == "CKA")
    values.loc[rows, "value"] = values.loc[floor, "value"].to_numpy()
    ends = [each.split("; ")[-1] for each in distances.sentences(values) if " at the end: floor" in each]
    assert ends == [f"floor and ceiling differ beyond the interval in {count} of 2 epochs" for count in (1, 2, 2, 2)]


def test_accuracies_are_compared_with_cl_and_the_floor() -> None:
    """Two arms may be equally far from CL and differ from it in other ways."""
    better = {"cl": (0.5, 0.52), "cl_moved": (0.5, 0.51), "nscl": (0.6, 0.61), "scl": (0.5, 0.7), "ce": (0.5, 0.7)}
    rows = [
        (seed, epoch, None, arm, "nearest centre", both[seed] if epoch == 2 else 0.1)
        for arm, both in {**better, "cl_other": (0.5, 0.7)}.items()
        for seed in (0, 1)
        for epoch in (1, 2)
    ]
    values = pd.concat([told(), pd.DataFrame(rows, columns=told().columns)])
    assert distances.sentences(values)[-1] == (
        "nearest centre at the end: cl 0.510, floor 0.505, nscl 0.605; nscl minus cl +0.095 (0.031 to 0.159), nscl"
        " minus floor +0.100 (0.100 to 0.100)"
    )
    assert "NSCL in CKA, RSA, weight gap, global weight gap and nearest centre, SCL in" in distances.summary(values)
    assert len(distances.sentences(values[values["arm"] != "cl_moved"])) == len(distances.NAMES) + 1


def test_differences_are_taken_within_a_seed() -> None:
    """Mean and interval are those of a paired t-test, with SciPy as the independent version."""
    table = distances.differences(told(scl=0.75)).set_index(["score", "NSCL nearer than"])
    test = stats.ttest_rel([0.8, 0.8], [0.7, 0.75])
    low, high = test.confidence_interval(0.95)
    row = table.loc[("CKA", "scl")]
    assert row["difference"] == "0.075"
    assert row["95 % interval"] == f"{low:.3f} to {high:.3f}"
    assert row["each seed"] == "0.100, 0.050"
    assert row["difference / sd"] == f"{0.075 / np.std([0.1, 0.05], ddof=1):.1f}"
    assert table.loc[("weight gap", "ce"), "difference"] == "0.200"  # gaps: the smaller, the nearer


def test_one_seed_has_no_interval() -> None:
    one = told()[lambda rows: rows["seed"] == 0]
    assert set(distances.differences(one)["95 % interval"]) == {"undefined"}
    assert set(distances.between(one)["each seed"]) == {"undefined"}


def test_arms_are_placed_between_floor_and_ceiling() -> None:
    table = distances.between(told(nscl=0.65)).set_index(["score", "arm"])
    assert table.loc[("CKA", "nscl"), "each seed"] == "0.20, 0.50"
    assert table.loc[("CKA", "nscl"), "share of the way from floor to ceiling"] == "0.35"
    assert table.loc[("weight gap", "ce"), "each seed"] == "0.60, 0.60"


def test_a_place_between_equal_floor_and_ceiling_is_undefined() -> None:
    """A quotient by a difference that may be 0 would be any number."""
    table = distances.between(told(cl_other=0.95)).set_index(["score", "arm"])
    assert table.loc[("CKA", "nscl"), "share of the way from floor to ceiling"] == "undefined"
    assert table.loc[("RSA", "nscl"), "share of the way from floor to ceiling"] == "0.20"


def test_the_last_epoch_has_a_row_for_every_arm() -> None:
    table = distances.final(told(nscl=0.9)).set_index("arm")
    assert list(table.index) == ["cl_moved", "nscl", "scl", "ce", "cl_other"]
    assert table.loc["nscl", "CKA"] == f"0.850 +- {np.std([0.8, 0.9], ddof=1):.3f}"
    assert set(table["seeds"]) == {"2"}


def test_the_figure_has_possible_values_and_says_how_many_seeds() -> None:
    """The drawn lines are the values of the seeds, then their mean."""
    figure = cifar10.draw("cifar10", told(nscl=0.9))
    assert len(figure.axes) == 4
    assert "n = 2 seeds" in figure.get_suptitle()
    for axes, score in zip(figure.axes, distances.NAMES, strict=True):
        low, high = axes.get_ylim()
        assert low == 0
        assert score not in distances.SIMILARITIES or high == 1
        assert len(axes.lines) == 5 * (2 + 1)  # arms, and their seeds with the mean
    drawn = np.array([line.get_ydata() for line in figure.axes[0].lines[:3]])
    assert drawn == pytest.approx(np.array([[0.8, 0.8], [0.8, 0.9], [0.8, 0.85]]))


def test_a_block_without_values_says_that_it_was_not_measured(tmp_path: Path) -> None:
    text = "<!-- cifar10 nearest -->\n<!-- end -->"
    assert "not measured" in page.filled(text, tmp_path)
    assert page.images(tmp_path).startswith("Nothing here was measured on natural images")
    told().to_csv(tmp_path / "cifar10.csv", index=False)
    assert "| CKA | 4 of 4 | 2 of 2 | none |" in page.filled(text, tmp_path)
    assert "Nothing" not in page.images(tmp_path)
    assert "| Of NSCL, SCL and CE, NSCL ends nearest to CL" in page.summary(tmp_path).splitlines()[2]
    assert "**Verdict:** Of NSCL, SCL and CE" in page.filled("<!-- cifar10 verdict -->\n<!-- end -->", tmp_path)
    assert "(reproduction/cifar10.png)" in page.filled("<!-- cifar10 figure -->\n<!-- end -->", tmp_path)


@pytest.mark.parametrize("sweep", cifar10.FACTORS)
def test_a_sweep_over_a_factor_has_its_trend_and_a_row_for_each_value(sweep: str, tmp_path: Path) -> None:
    factor, word, label = cifar10.FACTORS[sweep]
    cases = ("resnet18", "resnet50") if factor == "encoder.name" else (2, 10)
    both = pd.concat([told().assign(**{factor: cases[0]}), told(nscl=0.9).assign(**{factor: cases[1]})])
    both.to_csv(tmp_path / f"{sweep}.csv", index=False)
    verdict = f"| {word}: CKA does not change beyond the interval"
    assert sum(verdict in line for line in page.summary(tmp_path).splitlines()) == 1
    trend = page.filled(f"<!-- {sweep} trend -->\n<!-- end -->", tmp_path)
    assert f"CKA does not change beyond the interval {word}: 0.800 to 0.850, +0.050" in trend
    table = page.filled(f"<!-- {sweep} nearest -->\n<!-- end -->", tmp_path)
    named = [line.split(" | ")[0].strip("| ") for line in table.splitlines()[3:11]]
    assert named == [str(case) for case in cases for _ in range(4)]
    figure = cifar10.draw(sweep, both)
    assert "n = 2 seeds" in figure.get_suptitle()
    drawn = [line.get_ydata() for line in figure.axes[0].lines]
    if factor == "encoder.name":  # whose figure shows NSCL alone
        means = [line.get_segments()[0][0][1] for line in figure.axes[0].collections]
        seeds = np.concatenate(drawn)
    else:
        seeds, means, *beside = drawn  # points and means of `nscl`, then of floor and ceiling
        assert {axes.get_xlabel() for axes in figure.axes} == {label}
        assert [list(line) for line in beside[::2]] == [[0.9] * 4, [0.4] * 4]
        assert np.concatenate(beside[1::2]) == pytest.approx([0.9, 0.9, 0.4, 0.4])
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend == ["NSCL", *(distances.LABELS[arm] for arm in ("cl_moved", "cl_other"))]
        assert [line.get_linestyle() for line in figure.axes[0].lines[1::2]] == ["-", ":", "--"]
    assert sorted(seeds) == [0.8, 0.8, 0.8, 0.9]
    assert means == pytest.approx([0.8, 0.85])


def test_a_sweep_takes_the_point_that_another_one_has_trained() -> None:
    """Rows of the other sweep get the columns of this one, and replace rows that it has itself."""
    taken = cifar10.TAKEN["cifar10_classes"]
    both = pd.concat([told().assign(temperature=0.1), told(nscl=0.9).assign(temperature=0.5)])
    own = told().assign(**{"dataset.classes": 2, "dataset.root": "two"})
    once = cifar10.joint(own, both, taken)
    assert list(once.columns) == list(own.columns)
    pd.testing.assert_frame_equal(once[once["dataset.classes"] == 2], own, check_dtype=False)
    ten = once[once["dataset.classes"] == 10].reset_index(drop=True)
    pd.testing.assert_frame_equal(ten[told().columns], told(nscl=0.9))
    pd.testing.assert_frame_equal(cifar10.joint(once, both, taken), once)


def test_the_floor_on_cifar10_is_that_of_its_own_sweep() -> None:
    """The other arms keep their values."""
    floor = told(cl_moved=0.95)[lambda rows: rows["arm"] == "cl_moved"]
    values = cifar10.joint(
        told(), pd.concat([floor, told(nscl=0.1)[lambda rows: rows["arm"] == "nscl"]]), cifar10.TAKEN["cifar10"]
    )
    assert len(values) == len(told())
    changed = values.merge(told(), on=["seed", "epoch", "arm", "score"], suffixes=("", "_old"))
    changed = changed[changed["value"] != changed["value_old"]]
    assert changed[["seed", "epoch", "arm", "score", "value"]].values.tolist() == [[1, 2, "cl_moved", "CKA", 0.95]]


def test_the_floor_of_the_page_is_that_of_its_own_runs() -> None:
    """The twin in the runs of the other arms is a copy of CL: its weight was moved by less than bfloat16 resolves."""
    whole, floor = (pd.read_csv(reproduce.RESULTS / f"{name}.csv") for name in ("cifar10", "cifar10_floor"))
    own = floor[floor["arm"] == "cl_moved"]
    taken = whole[whole["arm"] == "cl_moved"][own.columns]
    pd.testing.assert_frame_equal(taken.reset_index(drop=True), own.reset_index(drop=True), check_dtype=False)
    assert own[(own["score"] == "weight gap") & (own["epoch"] > 0)]["value"].min() > 0.01


def test_cka_of_the_saved_embeddings_is_that_of_the_table() -> None:
    """The embeddings in the repository would belong to other runs, or the table would hold another measure."""
    with np.load(save_embeddings.FILE) as file:
        rows = {arm: file[arm].astype(np.float64) for arm in file.files if arm != "label"}
        assert set(np.unique(file["label"], return_counts=True)[1]) == {300}
    values = reproduction_values.read(reproduce.RESULTS / "cifar10.csv")
    values = values[(values["seed"] == save_embeddings.SEED) & (values["epoch"] == values["epoch"].max())]
    expected = values[(values["score"] == "CKA") & (values["reference"] == "cl")].set_index("arm")["value"]
    assert set(expected.index) == set(rows) - {"cl"}
    centred = {arm: each - each.mean(axis=0) for arm, each in rows.items()}
    product = {arm: np.linalg.norm(centred["cl"].T @ each) ** 2 for arm, each in centred.items()}
    length = {arm: np.linalg.norm(each.T @ each) for arm, each in centred.items()}
    for arm, value in expected.items():
        assert product[arm] / (length["cl"] * length[arm]) == pytest.approx(value, abs=1e-5)


def test_embeddings_of_a_missing_run_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong folder would end in a traceback, or replace the file."""
    before = save_embeddings.FILE.stat().st_mtime_ns
    assert save_embeddings.main(["--runs-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "cifar10" / "seed=0") in line
    assert save_embeddings.FILE.stat().st_mtime_ns == before
