"""gradients: sizes against loops and autograd in float64, every pair once in its bin, and rows of a run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from coupled.analysis import losses
from coupled.analysis.gradients import main
from coupled.analysis.representations.embeddings import Embedder, load_sample
from coupled.analysis.run import open_run
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import read_table
from coupled.analysis.theory.gradient_sizes import BINS, GradientSums, score_gradients
from coupled.analysis.theory.loss_sums import LOSSES
from coupled.objectives import Inputs

TAU = 0.3
LABELS = torch.tensor([0, 0, 1, 2, 1, 0, 3])


def some_inputs(labels_B: Tensor = LABELS) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    projections = normalize(torch.randn(2, len(labels_B), 5, generator=generator, dtype=torch.float64), dim=-1)
    return Inputs({"projection": projections}, {"projection": projections}, labels_B, labels_B)


def loss_of_anchor(loss: str, i: int, w: Tensor, rows: Tensor, labels: list[int]) -> Tensor | None:
    """The loss of anchor i from its definition, as a function of its projection w before normalisation."""
    M, images = len(rows), len(rows) // 2
    s = {a: normalize(w, dim=0) @ rows[a] / TAU for a in range(M) if a != i}
    view = [a for a in s if a % images == i % images]
    alike = [a for a in s if labels[a % images] == labels[i % images]]
    apart = [a for a in s if a not in alike]
    positives = alike if loss == "supcon" else view
    negatives = apart if loss in ("nscl", "supcon") else [a for a in s if a not in view]
    if not negatives and loss != "supcon":
        return None
    below = [*positives, *negatives] if loss in ("nt_xent", "supcon") else negatives
    return torch.stack([s[a] for a in below]).logsumexp(0) - torch.stack([s[p] for p in positives]).mean()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_that_of_the_loss_of_each_anchor_before_normalisation(loss: str) -> None:
    """Against autograd through the definition; the contributions of the pairs add up to the whole gradient."""
    inputs = some_inputs()
    rows = inputs.gathered["projection"].flatten(0, 1)
    cosines, slopes, counted = score_gradients(loss, inputs, TAU)
    assert counted.all()
    torch.testing.assert_close(cosines, rows @ rows.T)
    for i, row in enumerate(rows):
        w = row.clone().requires_grad_()
        of_anchor = loss_of_anchor(loss, i, w, rows, LABELS.tolist())
        assert of_anchor is not None
        (whole,) = torch.autograd.grad(of_anchor, w)
        terms = [slopes[i, a] * (rows[a] - cosines[i, a] * rows[i]) for a in range(len(rows))]
        torch.testing.assert_close(torch.stack(terms).sum(0), whole, rtol=1e-10, atol=1e-12)
        assert slopes[i, i] == 0


def slow(loss: str, inputs: Inputs) -> dict[tuple[str, str, int], list[float]]:
    """The sizes by kind, relation and bin, from loops over anchors and rows and autograd through the definition."""
    rows, labels = inputs.gathered["projection"].flatten(0, 1), inputs.labels_B.tolist()
    images, found = len(labels), {}
    for i in range(len(rows)):
        w = rows[i].clone().requires_grad_()
        of_anchor = loss_of_anchor(loss, i, w, rows, labels)
        if of_anchor is None:
            continue
        (whole,) = torch.autograd.grad(of_anchor, w)
        by_relation: dict[str, list[tuple[float, float]]] = {}
        for a in range(len(rows)):
            if a == i:
                continue
            alike = labels[a % images] == labels[i % images]
            relation = "same_image" if a % images == i % images else "same_class" if alike else "different_class"
            constant = rows[a].clone().requires_grad_()
            table = torch.cat([rows[:a], constant[None], rows[a + 1 :]])
            through = loss_of_anchor(loss, i, rows[i], table, labels)
            assert through is not None
            (slope,) = torch.autograd.grad(through, constant, allow_unused=True)
            size = 0.0 if slope is None else float(slope.norm())  # dL/dz_a = c_ia z_i has norm |c_ia|
            cosine = float(rows[i] @ rows[a])
            by_relation.setdefault(relation, []).append((cosine, size * math.sqrt(1 - cosine**2)))
        for relation, pairs in by_relation.items():
            for cosine, size in pairs:
                found.setdefault(("pair", relation, math.floor((cosine + 1) * BINS / 2)), []).append(size)
            hardest = (max if relation == "different_class" else min)(cosine for cosine, _ in pairs)
            place = math.floor((hardest + 1) * BINS / 2)
            found.setdefault(("anchor", relation, place), []).append(float(whole.norm()))
    return found


@pytest.mark.parametrize("loss", LOSSES)
def test_bins_hold_each_pair_and_anchor_once_with_mean_and_deviation(loss: str) -> None:
    """Two batches against loops; a batch of one class has no negatives for nscl, whose anchors are left out."""
    sums, known = GradientSums(TAU, [loss]), {}
    for inputs in (some_inputs(), some_inputs(torch.tensor([4, 4, 4]))):
        sums.update(inputs)
        for key, sizes in slow(loss, inputs).items():
            known.setdefault(key, []).extend(sizes)
    rows = list(sums.rows())
    assert len(rows) == 2 * 3 * BINS
    for _, temperature, kind, relation, low, high, count, mean, std in rows:
        assert temperature == TAU
        assert high - low == pytest.approx(2 / BINS)
        sizes = known.pop((kind, relation, round((low + 1) * BINS / 2)), [])
        assert count == len(sizes)
        if sizes:
            assert mean == pytest.approx(sum(sizes) / len(sizes), rel=1e-9, abs=1e-12)
            assert std == pytest.approx(float(torch.tensor(sizes, dtype=torch.float64).std(correction=0)), abs=1e-7)
        else:
            assert math.isnan(mean)
    assert not known


def test_hard_pairs_have_large_gradients_and_other_images_of_the_class_none_in_nscl() -> None:
    """The sizes of SupCon's section 3: an aligned positive has none, and nscl does not use same-class images."""
    z = normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64), dim=-1)
    turned = normalize(z + torch.tensor([[0.0, 0, 0], [0.8, 0, 0], [0, 3, 0]], dtype=torch.float64), dim=-1)
    views, labels = torch.stack([z, turned]), torch.tensor([0, 0, 1])
    sums = GradientSums(1.0, ["nscl"])
    sums.update(Inputs({"projection": views}, {"projection": views}, labels, labels))
    means = {row[2:5]: row[7] for row in sums.rows() if row[6]}
    easy, middle, hard = (
        mean
        for (kind, relation, _), mean in sorted(means.items(), key=lambda item: -item[0][2])
        if (kind, relation) == ("pair", "same_image")
    )
    assert easy < 1e-7 < middle < hard
    assert all(mean == 0 for (kind, relation, _), mean in means.items() if (kind, relation) == ("pair", "same_class"))


def test_rows_are_those_of_the_projections_of_the_run(
    drifting_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arms, epochs and losses must not be mixed up; equal weights have equal rows; a second call computes nothing."""
    options = ["--run-dir", str(drifting_run), "--output", str(tmp_path), "--num-images", "64", "--split", "test"]
    options += ["--arms", "cl", "scl", "--epochs", "0,2"]
    assert main(options) == 0
    rows = read_table(tmp_path / "gradients.csv", SCHEMAS["gradients.csv"].place)
    assert tuple(rows.columns) == SCHEMAS["gradients.csv"].columns
    assert len(rows) == 2 * 2 * len(LOSSES) * 2 * 3 * BINS
    own = [rows[(rows["epoch"] == epoch) & (rows["arm"] == arm)] for epoch, arm in ((0, "cl"), (0, "scl"), (2, "scl"))]
    first, second, third = (each["value"].reset_index(drop=True) for each in own)
    pd.testing.assert_series_equal(first, second)
    assert not first.equals(third)
    embedder = Embedder(open_run(drifting_run), torch.device("cpu"))
    seen = losses.batches_of(embedder.settings, load_sample(embedder.run, "test", 64, False))
    place: dict[str, Any] = {"epoch": 0, "size": embedder.settings.image_size}
    (batch,) = losses.batches(seen.images, seen.order_KG, seen.plan, **place)
    projections = {"projection": losses.projections_of(embedder.network("scl", 2), batch.views_VB3SS)}
    sums = GradientSums(embedder.settings.temperature)
    sums.update(Inputs(projections, projections, batch.labels_B, batch.labels_G))
    for (_, row), known in zip(own[2].iterrows(), sums.rows(), strict=True):
        assert tuple(row[["loss", "temperature", "gradient", "relation", "cosine_low"]]) == known[:5]
        assert row["gradients"] == known[6]
        assert row["value"] == pytest.approx(known[7], nan_ok=True, rel=1e-12)
    assert main(options) == 0
    assert "gradients.csv: 0 new rows" in capsys.readouterr().out


def test_a_run_without_labels_is_refused(new_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The relation of two images needs their classes."""
    run = new_run(epochs=(0,), arms=("cl",))
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(
        text.replace(text[text.index('"classes"') : text.index("]", text.index('"classes"')) + 1], '"classes": []')
    )
    assert main(["--run-dir", str(run)]) == 2
    assert "has no labels, which the hardness of pairs needs" in capsys.readouterr().err
