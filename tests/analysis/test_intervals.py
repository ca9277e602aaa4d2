"""intervals: the jackknife by hand, coverage, and the rows beside those of alignment.py."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from analysis import alignment
from analysis.intervals import COLUMNS, GROUPS, groups_of, interval, main
from analysis.pair_metrics import find_metrics
from analysis.pair_metrics._sums import CrossSums, RowStream

(CKA,) = find_metrics(["cka"])


def sums(x: Tensor, y: Tensor) -> list[CrossSums]:
    """xx, yy, xy of one group."""
    found = []
    for one, other in ((x, x), (y, y), (x, y)):
        each = CrossSums()
        rows = [RowStream("plain").rows(part) for part in (one, other)]
        each.update(rows[0], rows[0] if one is other else rows[1])
        found.append(each)
    return found


def cka(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    return float((y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


def some(seed: int, images: int = 60) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(images, 3, generator=rng, dtype=torch.float64)
    return x, x + torch.randn(images, 3, generator=rng, dtype=torch.float64)


def test_it_is_the_delete_a_group_jackknife_by_hand() -> None:
    x, y = some(0)
    found = interval(CKA, [sums(*both) for both in zip(x.chunk(10), y.chunk(10), strict=True)])
    parts = []
    for k in range(10):
        kept = torch.arange(60) // 6 != k
        parts.append(cka(x[kept], y[kept]))
    error = 2.262157 * np.sqrt(9 / 10 * np.sum((np.array(parts) - np.mean(parts)) ** 2))
    assert found == pytest.approx((cka(x, y), cka(x, y) - error, cka(x, y) + error), abs=1e-10)


def test_it_covers_the_value_of_many_images_nearly_always() -> None:
    """95 % of draws of 400 images should; an interval of a tenth of the length would cover in few of 60."""
    truth = cka(*some(999, 200_000))
    hits = 0
    for seed in range(60):
        x, y = some(seed, 400)
        _, low, high = interval(CKA, [sums(*both) for both in zip(x.chunk(10), y.chunk(10), strict=True)])
        hits += low <= truth <= high
    assert hits >= 52


def test_groups_are_all_images_once_by_chance() -> None:
    chosen = torch.arange(5, 108)
    groups = groups_of(chosen, 3, "test")
    assert len(groups) == GROUPS
    assert torch.equal(torch.cat(groups).sort().values, chosen)
    assert {len(group) for group in groups} == {10, 11}
    assert all(len({int(image) // 26 for image in group}) > 1 for group in groups)


def test_the_values_are_those_of_alignment_and_lie_within(
    drifting_run: Path, tmp_path: Path, table: Callable[[Path], list[dict[str, str]]]
) -> None:
    """At equal weights the interval has no width; a second call computes nothing."""
    base = [
        "--run",
        str(drifting_run),
        "--output",
        str(tmp_path),
        "--samples",
        "80",
        "--epochs",
        "0,2",
        "--split",
        "test",
    ]
    assert main(base) == 0
    before = (tmp_path / "alignment_intervals.csv").read_bytes()
    assert main(base) == 0
    assert (tmp_path / "alignment_intervals.csv").read_bytes() == before
    assert alignment.main(base) == 0
    found = pd.read_csv(tmp_path / "alignment_intervals.csv")
    assert tuple(found.columns) == COLUMNS
    keys = ["epoch", "split", "reference", "arm", "layer", "metric", "samples"]
    both = found.merge(pd.read_csv(tmp_path / "test_alignment.csv"), on=keys, suffixes=("", "_there"))
    assert len(both) == len(found) == 2 * 3 * 2 * 5
    np.testing.assert_allclose(both["value"], both["value_there"], atol=1e-9)
    start, later = both[both["epoch"] == 0], both[both["epoch"] == 2]
    assert (start["high"] - start["low"]).abs().max() < 1e-9
    assert ((later["low"] < later["value"]) & (later["value"] < later["high"])).all()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--metrics", "mutual_knn"], "--metrics: 'mutual_knn' is not one that is exact in one pass (those: cka, "),
        (["--samples", "20"], "--samples: 20 images of 'train'; 30 or more are allowed"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert main(["--run", str(drifting_run), "--output", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1
