"""bounds_of_tables: what a row says of a bound (its values are tested in test_bounds.py, from the tables of a run)."""

from pathlib import Path

import pandas as pd

from analysis.bound_formulas import Scatter, proposition_1
from analysis.bounds import COLUMNS
from analysis.bounds_of_tables import few_shot_rows


def test_a_few_shot_bound_says_whether_it_says_anything_and_holds(tmp_path: Path) -> None:
    """An error of one half beside scatter so small that the bound is below it, and so large that it is above 1."""
    rows = [
        (0, split, arm, "h", metric, detail, value, 9, 90, "s", "i")
        for arm, scatter in (("small", 1e-4), ("large", 9.0))
        for split, metric, detail, value in (
            *(("test", metric, "one_class", scatter) for metric in ("cdnv", "root_cdnv", "directional_cdnv")),
            *(("train", metric, "one_class", 0.5) for metric in ("cdnv", "root_cdnv", "directional_cdnv")),
            ("test", "few_shot_two_way", "nccc m=5", 0.5),
        )
    ]
    columns = ["epoch", "split", "arm", "layer", "metric", "detail", "value", "samples", "train_samples"]
    pd.DataFrame(rows, columns=[*columns, "snapshot", "images"]).to_csv(tmp_path / "quality.csv", index=False)
    every = [dict(zip(COLUMNS, row, strict=True)) for row in few_shot_rows(tmp_path / "quality.csv", 3)]
    found = {(row["arm"], row["bound"]): row for row in every}
    says = {key: (row["vacuous"], row["holds"]) for key, row in found.items()}
    for form in ("proposition_1", "documented_form"):
        assert (says["small", form], says["large", form]) == (("no", "no"), ("yes", "yes"))
    assert found["small", "proposition_1"]["value"] == proposition_1(Scatter(1e-4, 1e-4, 1e-4), 2, 5).error
