"""DirectPred's variants: shifted eigenvalues, the regression, one direction, partitions; against slow versions."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coupled.objectives import Inputs, byol, directpred, directpred_partitions, simsiam
from coupled.objectives._correlations import predictor_of, regression_of

VIEWS, IMAGES, WIDTH = 2, 8, 4
REGRESSION: dict[str, Any] = {"rule": "regression", "freq": 1, "eps": 0.1}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(outputs: dict[str, Tensor], gathered: dict[str, Tensor] | None = None, **kept: Tensor) -> Inputs:
    labels = torch.zeros(next(iter(outputs.values())).shape[1], dtype=torch.int64)
    return Inputs(outputs, gathered or {}, labels, labels, kept=kept)


@pytest.mark.parametrize("rule", ["paper", "code"])
@pytest.mark.parametrize(("shift", "floor"), [(0.5, 0.0), (-0.3, 0.0), (0.5, 0.4)])
def test_shifted_eigenvalues_equal_the_construction_written_with_numpy(rule, shift, floor):
    """Table 7: a shift outside the root, or of the wrong sign, would be another predictor."""
    f = random(9, WIDTH).numpy()
    correlation = f.T @ f / 9
    eigenvalues, vectors = np.linalg.eigh(correlation)
    expected, roots = np.zeros((WIDTH, WIDTH)), []
    for s, u in zip(eigenvalues, vectors.T, strict=True):
        s, offset = (s, 0.1 * eigenvalues.max()) if rule == "paper" else (s / eigenvalues.max(), 0.1)
        roots.append(math.sqrt(s - shift) if s > shift else 0.0)
        expected += max(roots[-1] + offset, floor) * np.outer(u, u)
    found = predictor_of(torch.from_numpy(correlation), rule, 0.1, shift, floor)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert shift < 0 or 0.0 in roots, "a shift above the least eigenvalue is tested"


def test_a_floor_of_a_hundredth_is_the_limit_of_the_authors_code():
    """Their root is of eigenvalues of at least 1e-4; in the directions below, a predictor of 0 would learn nothing."""
    f = random(9, WIDTH).numpy()
    eigenvalues, vectors = np.linalg.eigh(f.T @ f / 9)
    theirs = np.sqrt(np.clip(eigenvalues / eigenvalues.max() - 0.4, 1e-4, None))
    found = predictor_of(torch.from_numpy(f.T @ f / 9), "code", 0.0, 0.4, 0.01)
    np.testing.assert_allclose(found, vectors @ np.diag(theirs) @ vectors.T, atol=1e-12)
    assert theirs.min() == 0.01


@pytest.mark.parametrize("ridge", [0.0, 0.5])
@pytest.mark.parametrize("rows", [40, 3])
def test_the_regression_equals_least_squares(rows, ridge):
    """By lstsq on the rows themselves; with fewer rows than dimensions it is the solution of least norm."""
    f, t = random(rows, WIDTH).numpy(), random(rows, WIDTH, seed=1).numpy()
    padded = np.vstack([f, math.sqrt(rows * ridge) * np.eye(WIDTH)])
    solution, *_ = np.linalg.lstsq(padded, np.vstack([t, np.zeros((WIDTH, WIDTH))]), rcond=1e-10)
    moments = [torch.from_numpy(each.T @ f / rows) for each in (f, t)]
    np.testing.assert_allclose(regression_of(*moments, ridge), solution.T, atol=1e-9)


def test_the_regression_of_zero_projections_is_zero_and_that_of_nan_is_nan():
    """Collapsed projections divide by no eigenvalue; a run with NaN must stop with its own message."""
    zero = torch.zeros(3, 3)
    assert torch.equal(regression_of(zero, zero, 0.0), zero)
    assert regression_of(zero * torch.nan, zero, 0.1).isnan().all()


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("views", [2, 3])
def test_the_regression_predicts_the_other_views_from_the_batches_of_all_processes(views, decay, asymmetric):
    """Two steps of two processes against least squares on weighted rows: a view that predicts itself, or the target of
    one process, would be another predictor."""
    options = {**REGRESSION, "rho": 0.25, "ema_decay": decay, "asymmetric": asymmetric}
    directpred.check(**options)
    source = "unnormalised" if decay is None else "target_unnormalised"
    assert {"unnormalised", source} <= set(directpred.needs(**options).outputs)
    tensors = {f"kept.{name}": torch.zeros(WIDTH, WIDTH).double() for name in directpred.needs(**options).kept}
    tensors["predictor.weight"] = torch.eye(WIDTH).double()
    rows, targets, weights = [], [], []
    for step, weight in ((1, 0.25), (2, 0.75)):
        outputs = {name: random(views, IMAGES, WIDTH, seed=step + len(name)) for name in ("unnormalised", source)}
        halves = [{name: each[:, part] for name, each in outputs.items()} for part in (slice(0, 3), slice(3, None))]
        sums = [directpred.batch_sums(half, **options) for half in halves]
        tensors |= directpred.after_step(
            tensors, {key: sums[0][key] + sums[1][key] for key in sums[0]}, step, **options
        )
        for v in range(1 if asymmetric else views):
            for b in range(IMAGES):
                others = [outputs[source][w, b] for w in range(views) if w != v]
                rows.append(outputs["unnormalised"][v, b])
                targets.append(sum(others) / len(others))
                weights.append(math.sqrt(weight))
    scaled = [np.array(weights)[:, None] * torch.stack(each).numpy() for each in (rows, targets)]
    solution, *_ = np.linalg.lstsq(*scaled, rcond=None)
    np.testing.assert_allclose(tensors["predictor.weight"], solution.T, atol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "regression", "eps": 0.2}, "eps: 0.2 is not allowed; rule regression does not use it; remove eps"),
        ({"rule": "regression", "shift": 0.1}, "shift: 0.1 is not allowed; rule regression"),
        ({"rule": "regression", "floor": 0.1}, "floor: 0.1 is not allowed; rule regression"),
        ({"rule": "code", "ridge": 0.1}, "ridge: 0.1 is not allowed; rule code does not use it"),
        ({"floor": -0.1}, "floor: -0.1 is not allowed"),
        ({"shift": math.inf}, "shift: inf is not allowed"),
    ],
)
def test_an_option_that_the_rule_does_not_use_is_refused(options, message):
    """An option that is accepted and ignored would look as if it had an effect."""
    with pytest.raises(ValueError, match=message):
        directpred.check(**{"freq": 1, "rho": 0.3, "eps": 0.1, "ema_decay": None, **options})


@pytest.mark.parametrize(
    ("objective", "source"),
    [
        (partial(simsiam.simsiam, asymmetric=True), "projection"),
        (partial(byol.byol, asymmetric=True), "target_projection"),
        (partial(directpred.directpred, asymmetric=True), "target_projection"),
    ],
)
@pytest.mark.parametrize("views", [2, 3])
def test_the_asymmetric_loss_is_that_of_the_first_view_alone(objective, source, views):
    """Section 4.6 of SimSiam: -cos(p_1, z_2); a mean with zeros of the other views would halve the learning rate."""
    prediction, target = random(views, 5, WIDTH).requires_grad_(), F.normalize(random(views, 5, WIDTH, seed=1), dim=-1)
    loss = objective(inputs({"prediction": prediction, source: target}))
    losses = []
    for b in range(5):
        p = prediction[0, b].tolist()
        dots = [sum(x * y for x, y in zip(p, target[w, b].tolist(), strict=True)) for w in range(1, views)]
        losses.append(-sum(dots) / len(dots) / math.hypot(*p))
    assert loss.mean.item() == pytest.approx(sum(losses) / 5, abs=1e-12)
    assert (loss.counted, loss.skipped) == (5, 0)
    (gradient,) = torch.autograd.grad(loss.mean, prediction)
    assert (gradient[0] != 0).all()
    assert (gradient[1:] == 0).all()


PARTITIONS: dict[str, Any] = {"partitions": 3, "rule": "code", "rho": 0.25, "eps": 0.1, "ema_decay": None}
BATCHES = [random(VIEWS, IMAGES, WIDTH, seed=seed) + 1 for seed in (5, 6)]


def start_of_partitions() -> dict[str, Tensor]:
    """The kept tensors before the first step."""
    needed = directpred_partitions.needs(**PARTITIONS).kept
    zeros = {name: torch.zeros(2, 3, WIDTH, WIDTH).double() for name in needed}
    return {**zeros, "directions": F.normalize(random(3, WIDTH, seed=3), dim=-1)}


def after(batches: list[Tensor], kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """The kept tensors after the steps of these batches."""
    for step, batch in enumerate(batches, 1):
        tensors = {f"kept.{name}": each for name, each in kept.items()}
        changed = directpred_partitions.after_step(tensors, {"unnormalised": batch}, step, **PARTITIONS)
        kept = {**kept, **{name.removeprefix("kept."): each for name, each in changed.items()}}
    return kept


def upper(batch: np.ndarray, v: int, b: int, direction: np.ndarray) -> int:
    return int(direction @ batch[v, b] >= np.mean([direction @ row for row in batch[v]]))


def test_each_side_of_a_partition_has_the_predictor_of_its_own_rows():
    """Row by row with NumPy: a threshold of both views, a side that sees all rows, or a missing moving average."""
    kept = after(BATCHES, start_of_partitions())
    for k, direction in enumerate(kept["directions"].numpy()):
        for side in (0, 1):
            average = None
            for batch in (each.numpy() for each in BATCHES):
                own = [
                    np.outer(batch[v, b], batch[v, b])
                    for v in range(VIEWS)
                    for b in range(IMAGES)
                    if upper(batch, v, b, direction) == side
                ]
                moment = sum(own) / len(own)
                average = moment if average is None else 0.25 * average + 0.75 * moment
            np.testing.assert_allclose(kept["correlations"][side, k], average, atol=1e-12)
            expected = predictor_of(torch.from_numpy(average), "code", 0.1)
            np.testing.assert_allclose(kept["predictors"][side, k], expected, atol=1e-7)


def test_a_side_without_rows_keeps_its_matrices():
    """Equal rows are all on the upper side; a mean over no rows would be 0 or NaN."""
    first = after(BATCHES[:1], start_of_partitions())
    second = after([torch.ones_like(BATCHES[0])], first)
    for name in ("correlations", "predictors"):
        assert torch.equal(second[name][0], first[name][0])
        assert not torch.equal(second[name][1], first[name][1])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_loss_of_partitions_equals_a_loop_over_rows(processes):
    """The mean over partitions of the matrix of the own side; sides are those of the global batch in each process."""
    kept = after(BATCHES, start_of_partitions())
    f, target = random(VIEWS, IMAGES, WIDTH, seed=8), F.normalize(random(VIEWS, IMAGES, WIDTH, seed=9), dim=-1)
    rows, losses = f.numpy(), []
    for v in range(VIEWS):
        for b in range(IMAGES):
            sides = [upper(rows, v, b, direction) for direction in kept["directions"].numpy()]
            weight = sum(kept["predictors"][side, k].numpy() for k, side in enumerate(sides)) / 3
            p = weight @ rows[v, b]
            losses.append(-p @ target[1 - v, b].numpy() / np.linalg.norm(p))
    size, total = IMAGES // processes, 0.0
    for first in range(0, IMAGES, size):
        own = {"unnormalised": f[:, first : first + size], "projection": target[:, first : first + size]}
        given = inputs(own, {"unnormalised": f}, **kept)
        total += directpred_partitions.directpred_partitions(replace(given, first=first), **PARTITIONS).mean.item()
    assert total / processes == pytest.approx(np.mean(losses), abs=1e-12)


def test_before_the_first_step_partitions_predict_the_row_itself():
    """Matrices of 0 would have no gradient, and the network would never leave its start."""
    f, target = random(VIEWS, IMAGES, WIDTH), F.normalize(random(VIEWS, IMAGES, WIDTH, seed=1), dim=-1)
    given = inputs({"unnormalised": f, "projection": target}, {"unnormalised": f}, **start_of_partitions())
    found = directpred_partitions.directpred_partitions(given, **PARTITIONS).mean
    plain = simsiam.simsiam(inputs({"prediction": f, "projection": target})).mean
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"), [({"partitions": 0}, "partitions: 0 is"), ({"rho": 1.0}, "rho: 1.0 is")]
)
def test_options_of_partitions_out_of_range_are_refused(options, message):
    """No partition would leave no predictor."""
    with pytest.raises(ValueError, match=message):
        directpred_partitions.check(**{**PARTITIONS, **options})
