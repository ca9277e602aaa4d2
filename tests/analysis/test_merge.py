"""merge: the ends are the two arms, equal arms give a flat line, and batch norms get the statistics of the images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from coupled.analysis import merge, quality
from coupled.analysis.merge import main, shuffled_batches
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.weights.interpolation import interpolate, renew_batch_norm

Read = Callable[[Path], list[dict[str, str]]]
FEW = ["--num-images", "60", "--metrics", "nccc", "knn"]


def test_without_new_batch_norms_the_ends_have_the_values_of_quality(
    drifting_run: Path, tmp_path: Path, table: Read, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 0 and 1 the weights are those of a snapshot; a second call finds all rows."""
    base = ["--run-dir", str(drifting_run), "--output", str(tmp_path), *FEW, "--epochs", "2"]
    assert quality.main([*base, "--arms", "cl", "scl", "--split", "test"]) == 0
    options = [*base, "--compare", "scl", "--points", "0", "0.5", "1", "--batch-norm-images", "0"]
    assert main(options) == 0
    rows = table(tmp_path / "merge.csv")
    assert tuple(rows[0]) == SCHEMAS["merge.csv"].columns
    of_arms = {(r["arm"], r["module"], r["metric"]): r for r in table(tmp_path / "quality.csv")}
    for row in rows:
        assert (row["reference"], row["arm"], row["num_batch_norm_images"]) == ("cl", "scl", "0")
        if row["position"] != "0.5":
            known = of_arms["cl" if row["position"] == "0.0" else "scl", row["module"], row["metric"]]
            same = ("value", "variant", "k", "num_images", "num_train_images", "images_digest", "train_images_digest")
            assert [row[name] for name in same] == [known[name] for name in same]
            assert known["arm_digest"] in (row["reference_digest"], row["arm_digest"])
    assert len({row["value"] for row in rows if row["metric"] == "nccc" and row["module"] == "h"}) > 1
    assert main(options) == 0
    assert "merge.csv: 0 new rows, 12 in all" in capsys.readouterr().out


def test_equal_arms_give_a_flat_line_and_new_batch_norms_change_it(drifting_run: Path) -> None:
    """At epoch 0 all arms are equal; a line that is not flat would be an error of rounding or of the batch norms."""
    run, few = open_run(drifting_run), {"epochs": 0, "compare": "scl", "num_images": 60, "metrics": "nccc"}
    levels = {}
    for images in (0, 300):
        rows = merge.compute(run, points=[0, 0.3, 1], batch_norm_images=images, layers="h", **few)  # type: ignore[arg-type]
        assert rows["value"].nunique() == 1
        assert [*rows["num_batch_norm_images"].unique()] == [{0: 0, 300: 256}[images]]
        levels[images] = rows["value"].iloc[0]
    assert levels[0] != levels[300]


def test_an_interpolated_tensor_is_the_weighted_mean_and_counters_are_kept() -> None:
    """Exact at both ends and between equal tensors; a tensor that only one network has is left out."""
    generator = torch.Generator().manual_seed(0)
    one, other = (
        {"w": torch.randn(3, 4, generator=generator), "n": torch.tensor(step), "head": torch.ones(step)}
        for step in (1, 2)
    )
    del other["head"]
    found = interpolate(one, other, 0.3)
    assert [*found] == ["w", "n"]
    np.testing.assert_allclose(found["w"], 0.7 * one["w"].double() + 0.3 * other["w"].double(), rtol=1e-6)
    assert found["n"] == 1
    assert found["w"].dtype == torch.float32
    for position, end in ((0.0, one), (1.0, other)):
        assert torch.equal(interpolate(one, other, position)["w"], end["w"])
    assert torch.equal(interpolate(one, one, 0.3)["w"], one["w"])


class Small(nn.Module):
    """Two linear layers with batch norm and dropout, for views [1, N, 1, 1, 4]."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3), nn.BatchNorm1d(3)]
        self.layers = nn.Sequential(*layers)

    def forward(self, views: Tensor) -> Tensor:
        rows: Tensor = self.layers(views.flatten(2)[0])
        return rows


def slow(network: Small, batches: list[Tensor]) -> list[NDArray[np.float64]]:
    """Mean and variance of the inputs of both batch norms over all rows, in float64 and without torch's layers."""
    first, norm, _, _, second, _ = (
        {name: each.detach().double().numpy() for name, each in layer.named_parameters()} for layer in network.layers
    )
    inner, outer = [], []
    for batch in batches:
        a = batch.flatten(1).double().numpy() @ first["weight"].T + first["bias"]
        inner.append(a)
        b = (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-5) * norm["weight"] + norm["bias"]
        outer.append(np.maximum(b, 0) @ second["weight"].T + second["bias"])
    return [
        f(np.concatenate(each)) for each in (inner, outer) for f in (lambda x: x.mean(0), lambda x: x.var(0, ddof=1))
    ]


def test_batch_norms_get_mean_and_variance_over_all_images() -> None:
    """Against a calculation in float64 over unequal batches; with one batch also against torch's `update_bn`."""
    torch.manual_seed(0)
    network, images = Small().eval(), 3 + 2 * torch.randn(23, 1, 1, 4)
    norms = [network.layers[1], network.layers[5]]
    for batches in (list(images.split(9)), [images]):
        renew_batch_norm(network, batches)
        found = [each for norm in norms for each in (norm.running_mean, norm.running_var)]
        for one, other in zip(found, slow(network, batches), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        assert not any(module.training for module in network.modules())  # no dropout here, and none afterwards
        assert [int(norm.num_batches_tracked) for norm in norms] == [0, 0]
    before = [each.clone() for each in found]
    network.layers[3] = nn.Identity()  # update_bn would drop activations
    update_bn([images[None]], network)  # type: ignore[arg-type]
    for norm, (mean, variance) in zip(norms, (before[:2], before[2:]), strict=True):
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)


def test_images_for_batch_norms_are_shuffled_in_complete_batches() -> None:
    """Batches of a sorted dataset would have one class each; a last batch of one image has no variance."""
    order = shuffled_batches(2000, 513, 0)
    assert len(order) == 512
    assert len(set(order.tolist())) == 512
    assert order.tolist() != sorted(order.tolist())
    assert order[:256].double().mean() == pytest.approx(1000, abs=120)
    assert len(shuffled_batches(100, 513, 0)) == 100
    assert len(shuffled_batches(100, 0, 0)) == 0


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--points", "0", "1.5"], "--points: got 1.5; a number from 0 (the reference) to 1 (the arm) is allowed"),
        (["--metrics", "cdnv"], "--metrics: got cdnv, which is not a classifier; allowed are few_shot, few_shot_two_"),
        (["--metrics", "ncc"], "--metrics: got ncc, which is unknown; did you mean 'nccc'?; allowed are few_shot, "),
        (["--batch-norm-images", "1"], "--batch-norm-images: got 1; 0, or a number of 2 or more, is allowed"),
        (["--compare", "cl"], "--compare: 'cl' is the reference"),
    ],
)
def test_a_wrong_option_is_one_line(
    drifting_run: Path, tmp_path: Path, options: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, with the option, its value and what is allowed; no table is begun."""
    assert main(["--run-dir", str(drifting_run), "--output", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"coupled merge: {part}")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
