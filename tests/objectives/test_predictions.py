"""Objectives that predict one view from the other: values, gradients, and DirectPred's rule, against slow versions."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coupled.objectives import Inputs, Kept, byol, directpred, prediction_mse, simsiam
from coupled.objectives._correlations import predictor_of

FUNCTIONS = [  # each with what it predicts
    (simsiam.simsiam, "projection"),
    (partial(byol.byol, ema_decay=None), "projection"),
    (byol.byol, "target_projection"),
    (partial(directpred.directpred, ema_decay=None), "projection"),
    (directpred.directpred, "target_projection"),
]
RULES = ["paper", "code"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(prediction: Tensor, target: Tensor, source: str) -> Inputs:
    """`target` is the output `source`; what is not predicted is something else."""
    others = dict.fromkeys(("projection", "target_projection"), F.normalize(random(*target.shape, seed=9), dim=-1))
    outputs = {**others, "prediction": prediction, source: F.normalize(target, dim=-1)}
    labels = torch.zeros(prediction.shape[1], dtype=torch.int64)
    return Inputs(outputs, {}, labels, labels)


def double_loop(prediction: Tensor, target: Tensor) -> float:
    """The mean of -cos over images and ordered pairs of views, with lists."""
    losses = []
    for v, of_view in enumerate(prediction.tolist()):
        for b, p in enumerate(of_view):
            pulls = []
            for w, others in enumerate(target.tolist()):
                if w != v:
                    dot = sum(x * y for x, y in zip(p, others[b], strict=True))
                    pulls.append(-dot / math.hypot(*p) / math.hypot(*others[b]))
            losses.append(sum(pulls) / len(pulls))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize(("objective", "source"), FUNCTIONS)
def test_the_loss_equals_the_double_loop_of_its_formula(objective, views, source):
    """A view that predicts itself, or the own projection in place of the target's, would be another objective."""
    prediction, target = random(views, 5, 4), random(views, 5, 4, seed=1)
    loss = objective(inputs(prediction, target, source))
    assert loss.mean.item() == pytest.approx(double_loop(prediction, target), abs=1e-12, rel=0)
    assert (loss.counted, loss.skipped) == (views * 5, 0)


@pytest.mark.parametrize(("objective", "source"), FUNCTIONS)
def test_the_gradient_is_that_of_the_prediction_alone(objective, source):
    """A gradient through the target is the shortest way to collapse: it must be none, and the other one right."""
    target = random(2, 4, 3, seed=1).requires_grad_()
    prediction = random(2, 4, 3).requires_grad_()

    def mean(prediction: Tensor) -> Tensor:
        return objective(inputs(prediction, target, source)).mean

    assert torch.autograd.gradcheck(mean, [prediction])
    assert torch.autograd.grad(mean(prediction), target, allow_unused=True) == (None,)


@pytest.mark.parametrize(("objective", "source"), FUNCTIONS)
def test_order_rotation_and_length_do_not_matter(objective, source):
    """Views and images have no order, and only directions count."""
    prediction, target = random(2, 6, 4), random(2, 6, 4, seed=1)
    rotation, _ = torch.linalg.qr(random(4, 4, seed=2))
    lengths = random(2, 6, 1, seed=3).exp()
    expected = objective(inputs(prediction, target, source)).mean
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    for p, t in (
        (prediction.flip(0), target.flip(0)),
        (prediction[:, order], target[:, order]),
        (prediction @ rotation, target @ rotation),
        (prediction * lengths, target * lengths.flip(0)),
    ):
        torch.testing.assert_close(objective(inputs(p, t, source)).mean, expected, rtol=0, atol=1e-12)
    one_sided = objective(inputs(prediction, target.flip(0), source)).mean
    assert abs(one_sided - expected) > 0.01, "which view is predicted must matter"


@pytest.mark.parametrize(("objective", "source"), FUNCTIONS)
def test_a_collapsed_network_has_the_lowest_loss(objective, source):
    """The failure that these objectives do not punish; so a run has to watch the spread of the projections."""
    point = random(4).expand(2, 6, 4)
    assert objective(inputs(point, point, source)).mean.item() == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize(("objective", "source"), FUNCTIONS)
def test_a_single_view_has_nothing_to_predict(objective, source):
    """Its loss would be a silent 0."""
    prediction = random(1, 5, 4).requires_grad_()
    loss = objective(inputs(prediction, random(1, 5, 4, seed=1), source))
    assert (loss.mean, loss.counted, loss.skipped) == (0, 0, 5)
    assert torch.equal(torch.autograd.grad(loss.mean, prediction)[0], torch.zeros(1, 5, 4, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("objective", "source"), FUNCTIONS)
def test_autocast_changes_neither_the_dtype_nor_the_value(objective, source, dtype):
    """Cosines near 1 lose their differences in bfloat16."""
    given = inputs(random(2, 6, 64).to(dtype), random(2, 6, 64, seed=1).to(dtype), source)
    expected = objective(given).mean
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(given).mean
        sums = directpred.batch_sums({"unnormalised": given.outputs["prediction"]})
    assert loss.dtype == sums["outer"].dtype == torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("rule", RULES)
def test_the_predictor_equals_the_construction_written_with_numpy(rule, eps):
    """Eigenvector by eigenvector; F of four rows of width six has eigenvalues 0, whose roundings may be negative."""
    f = random(4, 6).numpy()
    correlation = f.T @ f / 4
    eigenvalues, vectors = np.linalg.eigh(correlation)
    expected = np.zeros((6, 6))
    for s, u in zip(np.maximum(eigenvalues, 0), vectors.T, strict=True):
        p = math.sqrt(s) + eps * eigenvalues.max() if rule == "paper" else math.sqrt(s / eigenvalues.max()) + eps
        expected += p * np.outer(u, u)
    found = predictor_of(torch.from_numpy(correlation), rule, eps)
    np.testing.assert_allclose(found, expected, atol=1e-7)  # the root of a rounding of 1e-16 is 1e-8
    np.testing.assert_allclose(found, found.T, atol=1e-14)
    roots = found.numpy() if rule == "paper" else found.numpy() * math.sqrt(eigenvalues.max())
    if eps == 0:
        np.testing.assert_allclose(roots @ roots, correlation, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_the_predictor_of_zero_projections_is_finite(rule):
    """Projections that are exactly 0 divide by no eigenvalue."""
    assert predictor_of(torch.zeros(3, 3), rule, 0.1).isfinite().all()


@pytest.mark.parametrize("freq", [1, 3])
def test_the_correlation_is_a_moving_average_and_the_predictor_is_set_every_freq_steps(freq):
    """Known data: step k sees f f^T = k^2 times one matrix, from two processes."""
    row = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    options = {"rule": "paper", "freq": freq, "rho": 0.3, "eps": 0.1, "ema_decay": None}
    directpred.check(**options)
    tensors = {"kept.correlation": torch.zeros(2, 2, dtype=torch.float64), "predictor.weight": torch.eye(2)}
    average, set_at = 0.0, []
    for step in range(1, 8):
        own = [directpred.batch_sums({"unnormalised": step * row.expand(2, rows, 2)}, **options) for rows in (1, 2)]
        sums = {name: own[0][name] + own[1][name] for name in own[0]}
        assert sums["rows"] == 6
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        changed = directpred.after_step(tensors, sums, step, **options)
        assert all(torch.equal(before[name], tensors[name]) for name in tensors), "a rule returns, it does not change"
        average = step**2 if step == 1 else 0.3 * average + 0.7 * step**2
        torch.testing.assert_close(changed["kept.correlation"], average * row.T @ row)
        if "predictor.weight" in changed:
            set_at.append(step)
            expected = predictor_of(changed["kept.correlation"], "paper", 0.1)
            torch.testing.assert_close(changed["predictor.weight"], expected)
        tensors |= changed
    assert set_at == ([*range(1, 8)] if freq == 1 else [1, 4, 7])


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (byol, {"ema_decay": 1.5}, "ema_decay: 1.5 is not allowed"),
        (byol, {"ema_decay": float("nan")}, "ema_decay: nan is not allowed"),
        (simsiam, {"hidden_dim": 0}, "hidden_dim: 0 is not allowed"),
        (directpred, {"freq": 0}, "freq: 0 is not allowed"),
        (directpred, {"rho": 1.0}, "rho: 1.0 is not allowed"),
        (directpred, {"eps": -0.1}, "eps: -0.1 is not allowed"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(module, options, message):
    """A decay above 1 makes weights explode some steps later, without an error."""
    good = {"freq": 1, "rho": 0.3, "eps": 0.1, "ema_decay": None, "hidden_dim": 64, "predictor": "mlp"}
    module.check(**good)
    with pytest.raises(ValueError, match=message):
        module.check(**{**good, **options})


def test_needs_ask_for_the_predictor_and_the_target():
    """The network is built from these; with `ema_decay: null` there is no second network."""
    assert simsiam.needs().target_decay is None
    assert byol.needs().target_decay == 0.996
    assert byol.needs().outputs == ("prediction", "target_projection")
    assert byol.needs(ema_decay=None).outputs == simsiam.needs().outputs == ("prediction", "projection")
    assert byol.needs(ema_decay=None).target_decay is None
    assert byol.needs(predictor="linear").heads["predictor"].kind == "linear_predictor"
    assert directpred.needs(freq=2).heads["predictor"].trained
    assert not directpred.needs().heads["predictor"].trained
    assert directpred.needs().kept == {"correlation": Kept(("unnormalised", "unnormalised"))}


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize(("decay", "source"), [(None, "unnormalised"), (0.9, "target_unnormalised")])
def test_the_squared_error_equals_its_double_loop_and_has_no_gradient_through_the_target(decay, source, views):
    """Half the squared distance to the other views, mean over views; lengths matter, unlike for the cosine."""
    prediction, target = random(views, 5, 4).requires_grad_(), random(views, 5, 4, seed=1).requires_grad_()
    labels = torch.zeros(5, dtype=torch.int64)
    outputs = {"unnormalised": target + 1, "target_unnormalised": target + 1, "prediction": prediction, source: target}
    loss = prediction_mse.prediction_mse(Inputs(outputs, {}, labels, labels), ema_decay=decay)
    expected = [
        sum((p - t) ** 2 for p, t in zip(prediction[v, b].tolist(), target[w, b].tolist(), strict=True)) / 2
        for v in range(views)
        for b in range(5)
        for w in range(views)
        if w != v
    ]
    assert loss.mean.item() == pytest.approx(sum(expected) / len(expected), rel=1e-12)
    assert (loss.counted, loss.skipped) == (views * 5, 0)
    assert torch.autograd.grad(loss.mean, target, allow_unused=True) == (None,)
    assert prediction_mse.needs(ema_decay=decay).outputs == ("prediction", source)
