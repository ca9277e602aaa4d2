"""The section on real images: its tables against values that were computed by hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reproduce
import reproduction_cifar10 as cifar10
from scipy import stats

SCRIPT = reproduce.ROOT / "scripts/reproduction/cifar10_subset.py"


def told(**changed: float) -> pd.DataFrame:
    """Values of two seeds and epochs 0 to 2. `changed` sets CKA of an arm in epoch 2 of seed 1."""
    base = {"nscl": 0.8, "scl": 0.7, "ce": 0.6, "cl_moved": 0.9, "cl_other": 0.4}
    rows = []
    for score in cifar10.NAMES:
        for seed in (0, 1):
            for epoch in (0, 1, 2):
                for arm, value in base.items():
                    chosen = changed.get(arm, value) if (score, seed, epoch) == ("CKA", 1, 2) else value
                    rows.append((seed, epoch, arm, score, chosen if score in cifar10.SIMILARITIES else 1 - chosen))
    return pd.DataFrame(rows, columns=["seed", "epoch", "arm", "score", "value"])


def test_epochs_in_which_nscl_is_not_nearest_are_counted_and_named() -> None:
    """Epoch 0 is not counted: all arms are equal there."""
    table = cifar10.nearest(told(scl=0.85)).set_index("score")
    assert table.loc["CKA"].tolist() == ["3 of 4", "1 of 2", "2"]
    for score in ("RSA", "weight gap", "global weight gap"):
        assert table.loc[score].tolist() == ["4 of 4", "2 of 2", "none"]


def test_differences_are_taken_within_a_seed() -> None:
    """Mean and interval are those of a paired t-test, with SciPy as the independent version."""
    table = cifar10.paired(told(scl=0.75)).set_index(["score", "NSCL nearer than"])
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
    assert set(cifar10.paired(one)["95 % interval"]) == {"undefined"}


def test_arms_are_placed_between_floor_and_ceiling() -> None:
    table = cifar10.between(told(nscl=0.65)).set_index(["score", "arm"])
    assert table.loc[("CKA", "nscl"), "each seed"] == "0.20, 0.50"
    assert table.loc[("CKA", "nscl"), "share of the way from floor to ceiling"] == "0.35"
    assert table.loc[("weight gap", "ce"), "each seed"] == "0.60, 0.60"


def test_the_last_epoch_has_a_row_for_every_arm() -> None:
    table = cifar10.last(told(nscl=0.9)).set_index("arm")
    assert list(table.index) == ["cl_moved", "nscl", "scl", "ce", "cl_other"]
    assert table.loc["nscl", "CKA"] == f"0.850 +- {np.std([0.8, 0.9], ddof=1):.3f}"
    assert set(table["seeds"]) == {"2"}


def test_the_figure_has_possible_values_and_says_how_many_seeds() -> None:
    figure = cifar10.draw(told())
    assert len(figure.axes) == 4
    assert "n = 2 seeds" in figure.get_suptitle()
    for axes, score in zip(figure.axes, cifar10.NAMES, strict=True):
        low, high = axes.get_ylim()
        assert low == 0
        assert score not in cifar10.SIMILARITIES or high == 1
        assert len(axes.lines) == 5 * (2 + 1)  # arms, and their seeds with the mean


def test_a_block_without_values_says_that_it_was_not_measured(tmp_path: Path) -> None:
    page = "<!-- cifar10 nearest -->\n<!-- end -->"
    assert "not measured" in reproduce.filled(page, tmp_path)
    told().to_csv(tmp_path / "cifar10.csv", index=False)
    assert "| CKA | 4 of 4 | 2 of 2 | none |" in reproduce.filled(page, tmp_path)
    with pytest.raises(ValueError, match="no claim fills the block 'cifar10 best'"):
        reproduce.filled("<!-- cifar10 best -->\n<!-- end -->", tmp_path)


def test_the_subset_has_the_first_images_of_each_class(tmp_path: Path) -> None:
    """A class with too few images is refused, with its name, before anything is copied."""
    for split, count in (("train", 1001), ("test", 300)):
        folder = tmp_path / "all" / split / "cat"
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number:04d}.jpg").touch()
    command = [sys.executable, str(SCRIPT), str(tmp_path / "all"), "--output", str(tmp_path / "some")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.endswith("some: 1,300 images\n")
    assert not (tmp_path / "some/train/cat/1000.jpg").exists()
    (tmp_path / "all/test/cat/0000.jpg").unlink()
    command[-1] = str(tmp_path / "other")
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "test/cat has 299 images; 300 are needed" in refused.stderr
    assert not (tmp_path / "other").exists()
