"""SwAV and DINO against loops; prototypes, codes, queue, centre and warm-up; runs on two ranks and after a resume."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import tiny
from test_ranks import train
from torch import Tensor

from coupled.arms import sanity_checks
from coupled.config.registry import find_objective
from coupled.models.heads import build_head
from coupled.objectives import Head, Inputs, dino, swav
from coupled.storage.checkpoints import read_newest

TAU, K = 0.3, 7
LABELS = torch.zeros(4, dtype=torch.int64)


def cosines(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def batch(views: int, images: int = 4) -> Inputs:
    names = ("scores", "target_scores", "local_scores")
    sizes = (views, views, 3)
    outputs = {name: cosines(size, images, K, seed=k) for k, (name, size) in enumerate(zip(names, sizes, strict=True))}
    kept = {"queue": cosines(6, 5, seed=7), "prototypes": cosines(K, 5, seed=8), "centre": cosines(K, seed=9)}
    labels = torch.zeros(images, dtype=torch.int64)
    return Inputs(outputs, {"scores": outputs["scores"].clone()}, labels, labels, kept=kept)


def softmax(scores: list[float], temperature: float) -> list[float]:
    exps = [math.exp(score / temperature) for score in scores]
    return [each / sum(exps) for each in exps]


def matrix_sinkhorn(scores_NK: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """The matrix of K prototypes and N rows of the paper, with row and column sums scaled in turn to 1/K and 1/N."""
    codes_KN = np.exp(scores_NK.T / epsilon)
    codes_KN /= codes_KN.sum()
    for _ in range(iterations):
        codes_KN /= len(codes_KN) * codes_KN.sum(1, keepdims=True)
        codes_KN /= codes_KN.shape[1] * codes_KN.sum(0, keepdims=True)
    return np.asarray(codes_KN.T * len(scores_NK))


def mean_cross_entropy(assigned: list[Any], inputs: Inputs, multi_crop: bool) -> float:
    """Over all pairs of an assigned view and another view, or a local view."""
    views = inputs.outputs["scores"].tolist()
    predicting = [*views, *(inputs.outputs["local_scores"].tolist() if multi_crop else [])]
    losses = [
        -sum(q * math.log(p) for q, p in zip(assigned[w][b], softmax(of_view[b], TAU), strict=True))
        for w in range(len(views))
        for v, of_view in enumerate(predicting)
        for b in range(len(of_view))
        if v != w
    ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("multi_crop", [False, True])
@pytest.mark.parametrize("queue", ["none", "full", "not full"])
@pytest.mark.parametrize("views", [2, 3])
def test_swav_equals_the_loop_of_its_formula(views, queue, multi_crop):
    """Codes from the matrix form of Sinkhorn. A code of the same view, or rows of an unfilled queue, would be wrong."""
    inputs = batch(views)
    if queue == "not full":
        inputs.kept["queue"][-1] = 0
    of_queue = (inputs.kept["queue"] @ inputs.kept["prototypes"].T).numpy()
    more = of_queue if queue == "full" else of_queue[:0]
    codes = [
        matrix_sinkhorn(np.concatenate([more, of_view]), 0.05, 3)[len(more) :]
        for of_view in inputs.gathered["scores"].numpy()
    ]
    options = {"num_prototypes": K, "queue_size": 0 if queue == "none" else 6, "multi_crop": multi_crop}
    loss = swav.swav(inputs, temperature=TAU, **options)
    assert loss.mean.item() == pytest.approx(mean_cross_entropy(codes, inputs, multi_crop), abs=1e-12)
    assert (loss.counted, loss.skipped) == (views * 4, 0)


@pytest.mark.parametrize("multi_crop", [False, True])
@pytest.mark.parametrize("views", [2, 3])
def test_dino_equals_the_loop_of_its_formula(views, multi_crop):
    """Exchanged networks or temperatures, or a centre that is added, would be another objective."""
    inputs = batch(views)
    centre = inputs.kept["centre"].tolist()
    assigned = [
        [softmax([score - c for score, c in zip(scores, centre, strict=True)], 0.07) for scores in of_view]
        for of_view in inputs.outputs["target_scores"].tolist()
    ]
    loss = dino.dino(inputs, temperature=TAU, target_temperature=0.07, num_prototypes=K, multi_crop=multi_crop)
    assert loss.mean.item() == pytest.approx(mean_cross_entropy(assigned, inputs, multi_crop), abs=1e-12)
    assert (loss.counted, loss.skipped) == (views * 4, 0)


@pytest.mark.parametrize("objective", [swav.swav, dino.dino])
def test_no_gradient_passes_the_assignments(objective):
    """The gradient is that of cross-entropy with constant targets: assignments must not move to the predictions."""
    inputs = batch(2)
    scores = inputs.outputs["scores"].requires_grad_()
    target = inputs.outputs["target_scores"].requires_grad_()
    whole = replace(inputs, gathered={"scores": scores})
    found = torch.autograd.grad(
        objective(whole, temperature=TAU, num_prototypes=K).mean,
        [scores, target],
        materialize_grads=True,
        allow_unused=True,
    )
    codes = (
        swav.codes(scores, {}, 0.05, 3, 0)
        if objective is swav.swav
        else ((target - inputs.kept["centre"]) / 0.04).softmax(-1)
    )
    expected = sum(F.cross_entropy(scores[v] / TAU, codes[1 - v].detach()) for v in (0, 1)) / 2
    torch.testing.assert_close(found[0], torch.autograd.grad(expected, scores)[0], rtol=0, atol=1e-12)
    assert not found[1].any()


def test_codes_use_all_prototypes_equally_and_do_not_overflow():
    """Without the balance all images may have one prototype; exp(1/0.001) is inf even in float64."""
    for epsilon in (0.5, 0.001):
        codes_VGK = swav.codes(cosines(2, 21, K, seed=1), {}, epsilon, sinkhorn_iterations=300, queue_size=0)
        torch.testing.assert_close(codes_VGK.sum(2), torch.ones(2, 21, dtype=torch.float64), rtol=0, atol=1e-12)
        if epsilon == 0.5:
            expected = torch.full((2, K), 21 / K, dtype=torch.float64)
            torch.testing.assert_close(codes_VGK.sum(1), expected, rtol=0, atol=1e-12)


def test_a_collapsed_network_has_the_largest_loss_and_one_image_alone_none():
    """Equal projections give log K or more: no constant network has a low loss. One image has the same code always."""
    for objective in (swav.swav, dino.dino):
        inputs = batch(2)
        for scores_K, highest in ((cosines(K, seed=5), False), (torch.full((K,), 0.4, dtype=torch.float64), True)):
            same = scores_K.expand(2, 4, K)
            outputs = {"scores": same, "target_scores": same}
            collapsed = replace(inputs, outputs=outputs, gathered=outputs, kept={"centre": scores_K})
            loss = float(objective(collapsed, temperature=TAU, num_prototypes=K).mean)
            assert loss >= math.log(K) - 1e-12
            assert not highest or loss == pytest.approx(math.log(K), abs=1e-12)
    alone = swav.swav(batch(2, images=1), temperature=TAU, num_prototypes=K)
    assert (alone.mean, alone.counted, alone.skipped) == (0, 0, 2)


def test_prototypes_have_unit_norm_from_the_start_and_after_every_step():
    """With other norms the scores would not be cosines, and the temperatures would have no fixed meaning."""
    head = build_head(Head("prototypes", "projection", "scores", width=K), 5, classes=3).double()
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(K, dtype=torch.float64), rtol=0, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(cosines(4, 5, seed=1)), cosines(4, 5, seed=1) @ head.weight.T)
    tensors = {"prototypes.weight": 3 * cosines(K, 5, seed=2), "kept.queue": torch.zeros(6, 5, dtype=torch.float64)}
    keys = cosines(2, 2, 5, seed=3)
    for step, stored in ((1, 0), (2, 4), (3, 6)):
        changed = swav.after_step(tensors, {"projection": keys}, step, queue_size=6, queue_start=1)
        torch.testing.assert_close(changed["prototypes.weight"], cosines(K, 5, seed=2), rtol=0, atol=1e-12)
        assert torch.equal(changed["kept.prototypes"], changed["prototypes.weight"])
        tensors |= changed
        assert int(tensors["kept.queue"].any(1).sum()) == stored


def test_the_prototypes_of_dino_are_weight_normalised():
    """The layer of the authors' code: torch's weight norm with norm 1; and it changes neither with the rows' scale."""
    head = build_head(Head("cosine_prototypes", "projection", "scores", width=K), 5, classes=3).double()
    layer = torch.nn.Linear(5, K, bias=False).double()
    layer.weight.data.copy_(head.weight.data)
    normed = torch.nn.utils.parametrizations.weight_norm(layer)
    normed.parametrizations.weight.original0.data.fill_(1)
    z = cosines(4, 5, seed=4)
    torch.testing.assert_close(head(z), normed(z), rtol=0, atol=1e-12)
    head(z).sin().sum().backward()
    normed(z).sin().sum().backward()
    expected = normed.parametrizations.weight.original1.grad
    torch.testing.assert_close(head.weight.grad, expected, rtol=0, atol=1e-12)


def test_the_centre_is_a_moving_average_and_the_target_temperature_rises_linearly():
    """A centre of this step's own scores, or a temperature one step late, would change the targets."""
    objective = find_objective(
        "x", "dino", {"num_prototypes": K, "target_temperature": 0.07, "warmup_steps": 3, "centre_decay": 0.8}, TAU
    )
    tensors = {
        f"kept.{name}": torch.zeros(size, dtype=torch.float64) for name, size in (("centre", K), ("warmup_steps", 1))
    }
    centre = np.zeros(K)
    for step in range(1, 6):
        inputs = batch(2)
        outputs = inputs.outputs | {"target_scores": cosines(2, 4, K, seed=20 + step)}
        kept = {name.removeprefix("kept."): tensor for name, tensor in tensors.items()}
        found = objective.function(replace(inputs, outputs=outputs, kept=kept), **objective.options).mean
        temperature = 0.04 + 0.03 * min(1, (step - 1) / 3)
        assigned_VBK = ((outputs["target_scores"] - torch.from_numpy(centre)) / temperature).softmax(-1)
        log_VBK = (outputs["scores"] / TAU).log_softmax(-1)
        expected = -(assigned_VBK * log_VBK.flip(0)).sum(-1).mean()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        tensors |= objective.after_step(tensors, objective.batch_sums(outputs), step, **objective.options)
        centre = 0.8 * centre + 0.2 * outputs["target_scores"].numpy().mean((0, 1))
        np.testing.assert_allclose(tensors["kept.centre"].numpy(), centre, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("swav", {"queue_start": 5}, "queue_start: 5 is not allowed; there is no queue; set queue_size"),
        ("swav", {"sinkhorn_iterations": 0}, "sinkhorn_iterations: 0 is not allowed; give a number from 1"),
        ("dino", {"warmup_steps": 5}, "warmup_steps: 5 is not allowed; warmup_temperature and target_temperature are"),
        ("dino", {"warmup_temperature": 0.02}, "warmup_temperature: 0.02 is not allowed; there is no warm-up"),
    ],
)
def test_options_without_effect_are_refused(objective, options, message):
    """They would be accepted and ignored."""
    with pytest.raises(ValueError, match=f"^arms.x.{message}"):
        find_objective("x", objective, options, TAU)


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_no_label_is_read(name):
    """A dataset without labels would be refused."""
    objective = find_objective("x", name, {"queue_size": 64} if name == "swav" else {}, TAU)
    assert not sanity_checks.depends_on_labels(objective)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_ranks_and_a_resumed_run_have_the_state_of_one_process(tmp_path: Path) -> None:
    """Queue, prototypes and centre are equal; frozen prototypes keep their first values; spread is measured."""
    changed: dict[str, Any] = {
        "arms": {
            "swav": {"objective": "swav", "num_prototypes": 20, "queue_size": 200, "queue_start": 1, "freeze_steps": 1},
            "dino": {
                "objective": "dino",
                "num_prototypes": 20,
                "target_temperature": 0.07,
                "warmup_steps": 3,
                "freeze_steps": 1,
            },
        },
        "dataset": {**tiny.TINY["dataset"], "classes": [0, 1, 2]},
        "batch": {"size": 144},  # 2 steps
        "augmentation": {**tiny.TINY["augmentation"], "local_views": 2, "local_size": 4},
        "precision": "float64",  # rounding of float32 grows at the kinks of ReLU
    }
    for arm in changed["arms"].values():
        arm["multi_crop"] = True
    one, two, resumed = (tmp_path / name for name in ("one", "two", "resumed"))
    tiny.train(one, **changed)
    train(2, two, **changed)
    for arm in tiny.train(resumed, max_steps=1, **changed).arms:
        start, first = tiny.tensors(one, arm.name, 0), arm.network.state_dict()
        torch.testing.assert_close(first["prototypes.weight"].float(), start["prototypes.weight"], rtol=0, atol=1e-6)
        assert not torch.equal(first["projector.0.weight"].float(), start["projector.0.weight"])
        assert arm.projection_spread() > 0
    tiny.train(resumed, resume=True, **changed)
    assert tiny.snapshot_bytes(resumed) == tiny.snapshot_bytes(one)
    states = [read_newest(run / "checkpoints").arms for run in (one, two, resumed)]
    for arm, kept in (("swav", {"queue", "prototypes"}), ("dino", {"centre", "warmup_steps"})):
        last = tiny.tensors(one, arm, 2)
        assert not torch.allclose(last["prototypes.weight"], tiny.tensors(one, arm, 0)["prototypes.weight"], atol=1e-4)
        names = {name for name in states[0][arm] if ".".join(name.split(".")[:-1]).endswith("kept")}
        assert {name.rpartition(".")[2] for name in names} == kept
        for name in names:
            assert torch.equal(states[0][arm][name], states[2][arm][name])
            assert states[0][arm][name].any()
            torch.testing.assert_close(states[1][arm][name], states[0][arm][name], rtol=0, atol=1e-9)
        of_two = tiny.tensors(two, arm, 2)
        for name, tensor in last.items():
            torch.testing.assert_close(of_two[name], tensor, rtol=1e-5, atol=1e-6)
