"""bounds_of_tables: the columns `vacuous` and `holds` (test_bounds.py tests the values, from the tables of a run)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from coupled.analysis.theory.bound_formulas import Scatter, proposition_1
from coupled.analysis.theory.bounds_of_tables import COLUMNS, SCATTER, few_shot_rows


def write_quality(path: Path, scatters: Mapping[str, Sequence[float]], metric: str) -> None:
    """Write a quality.csv with an error of one half for each arm, and its scatter: V, Vs, Vdir."""
    rows = [
        (0, split, arm, "h", name, how, shots, "", value, 9, 90, "s", "i")
        for arm, scatter in scatters.items()
        for split, name, how, shots, value in (
            *(("test", name, "one_class", "", each) for name, each in zip(SCATTER, scatter, strict=True)),
            *(("train", name, "one_class", "", 0.5) for name in SCATTER),
            ("test", metric, "nccc", 5, 0.5),
        )
    ]
    columns = ["epoch", "split", "arm", "module", "metric", "variant", "shots", "k", "value", "num_images"]
    pd.DataFrame(rows, columns=[*columns, "num_train_images", "arm_digest", "images_digest"]).to_csv(path, index=False)


def found_in(path: Path, classes: int) -> dict[tuple[str, str], dict[str, object]]:
    every = [dict(zip(COLUMNS, row, strict=True)) for row in few_shot_rows(path, classes)]
    return {(str(row["arm"]), str(row["bound"])): row for row in every}


def test_a_few_shot_bound_states_whether_it_is_vacuous_and_whether_it_holds(tmp_path: Path) -> None:
    """The error is one half. The scatter is so small that the bound is below it, and so large that the bound is above
    1.
    """
    scatters = {"small": [1e-4] * 3, "large": [9.0] * 3}
    write_quality(tmp_path / "quality.csv", scatters, "few_shot_two_way")
    found = found_in(tmp_path / "quality.csv", 3)
    says = {key: (row["vacuous"], row["holds"]) for key, row in found.items()}
    for form in ("proposition_1", "documented_form"):
        assert (says["small", form], says["large", form]) == (("no", "no"), ("yes", "yes"))
    assert found["small", "proposition_1"]["value"] == proposition_1(Scatter(1e-4, 1e-4, 1e-4), 2, 5).error


@pytest.mark.parametrize(
    ("metric", "classes", "vacuous"),
    [("few_shot_two_way", 3, "yes"), ("few_shot", 2, "yes"), ("few_shot", 10, "no")],
)
def test_a_two_class_bound_of_one_half_or_more_is_vacuous(
    tmp_path: Path, metric: str, classes: int, vacuous: str
) -> None:
    """Guessing reaches 1/2 between two classes, so .63 to .96 say nothing. Among ten classes the limit is 1."""
    scale = 0.75 / proposition_1(Scatter(1.0, 1.0, 1.0), 2 if metric.endswith("two_way") else classes, 5).error
    write_quality(tmp_path / "quality.csv", {"cl": [scale] * 3}, metric)
    row = found_in(tmp_path / "quality.csv", classes)["cl", "proposition_1"]
    assert row["value"] == pytest.approx(0.75)
    assert row["vacuous"] == vacuous
