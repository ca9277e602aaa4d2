"""barrier: the ends are the two arms, the excess is that over a straight line, and matched channels lower it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from coupled.analysis import barrier, losses, merge
from coupled.analysis.barrier import ends_of, main
from coupled.analysis.run import open_run, open_store, read_description
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import read_table
from coupled.analysis.weights.barrier_rows import heights
from coupled.analysis.weights.channel_matching import channel_axes, permuted

Read = Callable[[Path], list[dict[str, str]]]
FEW: dict[str, Any] = {"num_images": 64, "metrics": "nccc"}


def curve(rows: pd.DataFrame, metric: str, column: str = "value") -> dict[float, float]:
    """The values of a metric by position."""
    of_metric = rows[rows["metric"] == metric]
    return dict(zip(of_metric["position"], of_metric[column], strict=True))


def test_the_ends_have_the_losses_of_the_arms_and_the_accuracy_of_merged_weights(
    drifting_run: Path, tmp_path: Path, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """With interpolated running averages the ends are snapshots; the excess there is 0; a second call finds all."""
    options = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--num-images", "64", "--epochs", "2"]
    options += ["--compare", "scl", "--split", "test", "--points", "0.5", "--batch-norm-images", "0"]
    assert main(options) == 0
    rows = read_table(tmp_path / "barrier.csv", SCHEMAS["barrier.csv"].place)
    assert tuple(rows.columns) == SCHEMAS["barrier.csv"].columns
    run = open_run(drifting_run)
    known = losses.compute(run, epochs=2, split="test", temperatures=[0.5], num_images=64).set_index(["arm", "loss"])
    few: dict[str, Any] = {"epochs": 2, "compare": "scl", "layers": "h", **FEW}
    merged = merge.compute(run, points=[0, 0.5, 1], batch_norm_images=0, **few)
    assert curve(rows, "nccc") == curve(merged, "nccc")
    for loss in ("dcl", "nscl", "nt_xent", "supcon"):
        found, excess = curve(rows, loss), curve(rows, loss, "excess")
        assert found[0.0] == pytest.approx(known.loc[("cl", loss), "value"], rel=1e-12)
        assert found[1.0] == pytest.approx(known.loc[("scl", loss), "value"], rel=1e-12)
        assert (excess[0.0], excess[1.0]) == (0, 0)
        assert excess[0.5] == pytest.approx(found[0.5] - (found[0.0] + found[1.0]) / 2, rel=1e-12)
        assert excess[0.5] != 0
    assert main(options) == 0
    assert "barrier.csv: 0 new rows, 15 in all" in capsys.readouterr().out
    tall = {row["metric"]: row for row in table(tmp_path / "barrier_height.csv")}
    assert tuple(tall["nscl"]) == SCHEMAS["barrier_height.csv"].columns
    assert float(tall["nscl"]["value"]) == max(curve(rows, "nscl", "excess").values())
    assert (tall["nscl"]["points"], tall["nscl"]["batch_size"], tall["nccc"]["batch_size"]) == ("3", "64", "")


def test_equal_arms_have_no_barrier(drifting_run: Path) -> None:
    """At epoch 0 all arms are equal: every position has the same batch norms, losses and accuracy."""
    options: dict[str, Any] = {"epochs": 0, "compare": "ce", "split": "test", "points": [0.3], **FEW}
    rows = barrier.compute(open_run(drifting_run), batch_norm_images=256, **options)
    assert (rows["excess"] == 0).all()
    assert set(rows["position"]) == {0.0, 0.3, 1.0}
    assert (heights(rows)["value"] == 0).all()
    assert {*rows["num_batch_norm_images"]} == {256}
    without = barrier.compute(open_run(drifting_run), batch_norm_images=0, **options)
    assert (without["excess"] == 0).all()
    assert (without["value"] != rows["value"]).any()


def test_matched_channels_undo_a_permutation_and_keep_the_function(new_run: Callable[..., Path]) -> None:
    """An arm that is the reference in another order has a barrier, and none modulo permutation."""
    folder = new_run(epochs=(2,), arms=("cl",))
    run = open_run(folder)
    own = run.state_dict("cl", 2)
    axes = channel_axes({name: tuple(each.shape) for name, each in own.items() if each.is_floating_point()})
    generator = torch.Generator().manual_seed(0)
    sizes = {g: own[n].shape[i] for n, groups in axes.items() for i, g in enumerate(groups) if g}
    orders = {group: torch.randperm(size, generator=generator) for group, size in sizes.items()}
    shuffled = {name: permuted(each, axes.get(name, ()), orders) for name, each in own.items()}
    open_store(folder, read_description(folder)).write("nscl", 2, shuffled, step=2, metadata={})
    network, views = run.network("cl", 2), torch.randn(2, 5, 3, 8, 8, generator=generator)
    same = run.network("nscl", 2)(views)["projection"]
    torch.testing.assert_close(same, network(views)["projection"], rtol=1e-4, atol=1e-5)
    _, as_trained = ends_of(run, network, ("cl", "nscl"), 2, "none")
    _, matched = ends_of(run, network, ("cl", "nscl"), 2, "permutation")
    assert all(torch.equal(as_trained[name], shuffled[name]) for name in own)
    assert all(torch.equal(matched[name], own[name]) for name in own)
    assert not torch.equal(as_trained["encoder.conv1.weight"], own["encoder.conv1.weight"])


def test_the_height_is_the_largest_excess_of_a_loss_and_the_largest_loss_of_accuracy() -> None:
    """A gain of accuracy half way is not a barrier; an undefined curve has no height."""
    columns = SCHEMAS["barrier.csv"].columns
    rows = [
        {"metric": metric, "module": module, "position": position, "excess": excess}
        for metric, module, curve_ in (("nscl", "z", (0, -0.5, 0.2, 0)), ("nccc", "h", (0, 0.1, -0.3, 0)))
        for position, excess in zip((0.0, 0.25, 0.5, 1.0), curve_, strict=True)
    ]
    rows += [{"metric": "dcl", "module": "z", "position": 0.5, "excess": math.nan}]
    found = heights(pd.DataFrame(rows).reindex(columns=list(columns)).assign(epoch=1)).set_index("metric")
    assert found["value"].to_dict() == {"nscl": 0.2, "nccc": 0.3}
    assert found["position"].to_dict() == {"nscl": 0.5, "nccc": 0.5}
    assert found["points"].to_dict() == {"nscl": 4, "nccc": 4}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--points", "-1"], "--points: got -1; a number from 0 (the reference) to 1 (the arm) is allowed"),
        (["--metrics", "cdnv"], "--metrics: got cdnv, which is not a classifier"),
        (["--batch-norm-images", "1"], "--batch-norm-images: got 1; 0, or a number of 2 or more, is allowed"),
        (["--align", "all"], "--align"),
    ],
)
def test_a_wrong_option_is_one_line(
    drifting_run: Path, tmp_path: Path, options: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, with the option, its value and what is allowed; no table is begun."""
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out/barrier.csv").exists()
