"""Arms with a target network or an update rule: initialisation, EMA, undo and resume."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ranks, tiny
from torch import Tensor

from coupled.arms.arm import Arm
from coupled.coordinator import Coordinator
from coupled.objectives._correlations import predictor_of
from coupled.parallel.process_group import process_group
from coupled.storage.checkpoints import read_newest
from coupled.stream.batches import Batch

BYOL: dict[str, Any] = {"objective": "byol", "hidden_dim": 32, "ema_decay": 0.9}
DIRECT: dict[str, Any] = {"objective": "directpred", "freq": 2, "ema_decay": 0.5}
EVERY: dict[str, Any] = {
    "byol": BYOL,
    "direct": DIRECT,
    "optimal": {"objective": "directpred", "rule": "regression", "ridge": 0.1, "ema_decay": 0.5},
    "parts": {"objective": "directpred_partitions", "partitions": 2, "ema_decay": 0.5},
}
FEWER = {name: arm for name, arm in EVERY.items() if name != "optimal"}  # for tests of whole runs
SMALL: dict[str, Any] = {
    "dataset": {"name": "digits", "image_size": 8, "classes": [0, 1]},  # 289 images
    "batch": {"size": 72},  # 4 steps
    "epochs": 1,
    "precision": "float64",
    "encoder": {"name": "test_resnet", "stem": "imagenet"},
}


@contextmanager
def arms_and_batches(**arms: Any) -> Iterator[tuple[list[Arm], Iterator[Batch]]]:
    with process_group("cpu") as group:
        coordinator = Coordinator(tiny.tiny_settings(**SMALL, arms=arms), group, Path("unused"))
        yield coordinator.arms, (inputs[""] for inputs in coordinator.step_batches(1))


def parts(arm: Arm, prefix: str) -> dict[str, Tensor]:
    """Copies of the network's tensors below a prefix, without it."""
    tensors = arm.network.state_dict()
    return {n.removeprefix(prefix): t.clone() for n, t in tensors.items() if n.startswith(prefix)}


def online(arm: Arm) -> dict[str, Tensor]:
    return {name: t for name, t in parts(arm, "").items() if name.split(".")[0] in ("encoder", "projector")}


def test_the_target_is_an_ema_copy_with_separate_batch_norm_statistics() -> None:
    """Written out: the moving average of every parameter; the running averages are those of its own forwards."""
    with arms_and_batches(cl="dcl", byol=BYOL) as ((cl, byol), batches):
        slow = online(byol)
        assert all(torch.equal(tensor, online(cl)[name]) for name, tensor in slow.items())
        assert all(torch.equal(tensor, slow[name]) for name, tensor in parts(byol, "target.").items())
        names = {name for name, _ in byol.network.named_parameters()}
        for step, batch in enumerate(batches, 1):
            before = parts(byol, "target.")
            byol.gradients(batch)
            after = parts(byol, "target.")
            moved = {name for name in before if not torch.equal(before[name], after[name])}
            assert moved == {n for n in before if ".running_" in n or n.endswith("num_batches_tracked")}
            byol.update(0.5, step)
            for name, tensor in parts(byol, "target.").items():
                if name in names:
                    slow[name] = 0.9 * slow[name] + 0.1 * online(byol)[name]
                    torch.testing.assert_close(tensor, slow[name], rtol=0, atol=1e-14)
                else:
                    assert torch.equal(tensor, after[name]), f"{name} must be the target's own"
        assert step == 4
        assert all(parameter.grad is None for parameter in byol.network.get_submodule("target").parameters())
        first = next(name for name, _ in byol.network.named_parameters() if name.startswith("encoder."))
        assert not torch.allclose(online(byol)[first], slow[first], rtol=1e-3), "the target must lag behind"


def test_the_target_output_is_that_of_its_weights_on_the_statistics_of_the_batch() -> None:
    """A plain network in training mode with the target's weights gives the same output; the online network does not."""
    with arms_and_batches(cl="dcl", byol={**BYOL, "ema_decay": 1.0}) as ((cl, byol), batches):
        first, second = next(batches), next(batches)
        byol.gradients(first)
        byol.update(0.5, 1)
        found = byol.network(second.views_VB3SS.double())
        expected = cl.network(second.views_VB3SS.double())["projection"]  # with decay 1 the target stays at the start
        torch.testing.assert_close(found["target_projection"], expected.detach(), rtol=0, atol=1e-12)
        assert not found["target_projection"].requires_grad
        assert not torch.allclose(found["target_projection"], found["projection"], atol=1e-2)


def test_undo_restores_the_state_of_an_arm() -> None:
    """The forward pass moves the running averages of the target too."""
    with arms_and_batches(**EVERY) as (arms, batches):
        batch = next(batches)
        for arm in arms:
            before = parts(arm, "")
            arm.gradients(batch)
            assert any(not torch.equal(before[name], tensor) for name, tensor in parts(arm, "target.").items())
            arm.undo()
            after = parts(arm, "")
            assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_directpred_sets_its_predictor_from_the_correlation_of_past_batches() -> None:
    """F over both views of the batch, and W_p of it after steps 1 and 3; between them W_p is trained."""
    with arms_and_batches(direct=DIRECT) as ((direct,), batches):
        correlation = torch.zeros(16, 16, dtype=torch.float64)
        for step, batch in enumerate(batches, 1):
            with torch.no_grad():
                f = direct.network(batch.views_VB3SS.double())["unnormalised"].flatten(0, 1)
            moment = sum(torch.outer(row, row) for row in f) / len(f)
            correlation = moment if step == 1 else 0.3 * correlation + 0.7 * moment
            before = parts(direct, "predictor.")["weight"]
            direct.gradients(batch)
            direct.update(0.5, step)
            tensors = parts(direct, "")
            torch.testing.assert_close(tensors["kept.correlation"], correlation, rtol=0, atol=1e-10)
            set_to = predictor_of(tensors["kept.correlation"], "paper", 0.1)
            assert torch.equal(tensors["predictor.weight"], set_to) == (step in (1, 3))
            assert not torch.equal(tensors["predictor.weight"], before)


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one_and_twins_stay_equal(tmp_path: Path) -> None:
    """The target, its running averages and F are state: a target that starts anew follows another path."""
    settings = {**SMALL, "arms": {**FEWER, "twin": {"twin": "byol"}}}
    tiny.train(tmp_path / "whole", **settings)
    tiny.train(tmp_path / "cut", max_steps=3, **settings)
    tiny.train(tmp_path / "cut", resume=True, **settings)
    tiny.train(tmp_path / "alone", **{**settings, "arms": {"byol": BYOL}})
    states = [read_newest(tmp_path / run / "checkpoints") for run in ("whole", "cut")]
    for name, tensors in states[0].arms.items():
        assert [key for key, t in tensors.items() if not torch.equal(t, states[1].arms[name][key])] == []
    whole = {arm: tiny.tensors(tmp_path / "whole", arm, 1) for arm in ("byol", "twin", "direct")}
    assert {"target.encoder.conv1.0.weight", "predictor.0.weight"} <= whole["byol"].keys()
    assert {"kept.correlation", "predictor.weight"} <= whole["direct"].keys()
    for other in (whole["twin"], tiny.tensors(tmp_path / "alone", "byol", 1)):
        assert [name for name, t in whole["byol"].items() if not torch.equal(t, other[name])] == []


def train_on_a_rank(run: Path, changed: dict[str, Any]) -> None:
    tiny.train(run, **changed)


@pytest.mark.distributed
@pytest.mark.parametrize("arms", [1, 2], ids=["data-parallel", "arm-parallel"])
def test_two_ranks_run_the_same_experiment(arms: int, tmp_path: Path) -> None:
    """The target's batch norm and F are of the global batch: with statistics per rank the networks would diverge."""
    changed = {**SMALL, "arms": FEWER, "batch": {"size": 144}}  # 2 steps
    ranks.run(1, train_on_a_rank, tmp_path / "one", changed)
    ranks.run(2, train_on_a_rank, tmp_path / "two", {**changed, "parallel": {"arm_groups": arms}})
    one, two = (read_newest(tmp_path / run / "checkpoints") for run in ("one", "two"))
    start = tiny.tensors(tmp_path / "one", "byol", 0)["target.encoder.conv1.0.weight"]
    moved = (one.arms["byol"]["network/target.encoder.conv1.0.weight"] - start).abs().max()
    assert moved > 1e-4
    worst = 0.0
    for name, tensors in one.arms.items():
        for key, tensor in tensors.items():
            torch.testing.assert_close(two.arms[name][key], tensor, rtol=0, atol=0 if arms == 2 else 1e-12, msg=key)
            worst = max(worst, float((two.arms[name][key] - tensor).abs().max()))
    print(f"{arms} places of arms: differ by {worst:.1e}, the target has moved by {moved:.1e}")


@pytest.mark.parametrize("objective", ["byol", "simsiam"])
@pytest.mark.parametrize("predictor", ["linear_bias", "symmetric", "symmetric_bias"])
def test_symmetric_predictors_stay_symmetric_and_others_do_not(objective: str, predictor: str) -> None:
    """P5's ablation: W_p <- (W_p + W_p^T) / 2 at the start and after every step; a bias exists only if it is named."""
    settings = tiny.tiny_settings(arms={"a": {"objective": objective, "predictor": predictor}}, batch={"size": 64})
    with process_group("cpu") as group:
        coordinator = Coordinator(settings, group, Path("unused"))
        arm, batch = coordinator.arms[0], next(coordinator.step_batches(1))[""]
        start = arm.network.predictor.weight.detach().clone()
        arm.gradients(batch)
        arm.update(0.5, 1)
        arm.replica = arm.network
    weight = arm.network.predictor.weight.detach()
    assert not torch.equal(weight, start)
    for each in (weight, start):
        assert torch.equal(each, each.T) == predictor.startswith("symmetric")
    assert (arm.network.predictor.bias is not None) == predictor.endswith("_bias")


@pytest.mark.parametrize(
    "predictor", ["two_layer", "two_layer_bias", "symmetric_two_layer", "symmetric_two_layer_bias"]
)
def test_two_layers_of_a_symmetric_predictor_stay_tied_and_others_do_not(predictor: str) -> None:
    """P5's table 3: both layers get the mean of W_1 and W_2^T at the start and after every step; the batch norm has no
    scale and no shift, and biases exist only if they are named.
    """
    options = {"objective": "byol", "predictor": predictor, "hidden_dim": 24, "ema_decay": None}
    with arms_and_batches(a=options) as ((arm,), batches):
        first, norm, _, last = arm.network.predictor
        start = [layer.weight.detach().clone() for layer in (first, last)]
        arm.gradients(next(batches))
        gradients = [layer.weight.grad.clone() for layer in (first, last)]
        arm.update(0.5, 1)
        moved = [layer.weight.detach().clone() for layer in (first, last)]
    assert not torch.equal(moved[0], start[0])
    for one, other in (start, moved):
        assert one.shape == (24, 16)
        assert torch.equal(one, other.T) == predictor.startswith("symmetric")
    if predictor.startswith("symmetric"):  # SGD moves both by the mean of their gradients, and a little by its decay
        mean = (gradients[0] + gradients[1].T) / 2
        torch.testing.assert_close(moved[0], start[0] - 0.5 * mean, rtol=0, atol=1e-6)
    assert [layer.bias is not None for layer in (first, last)] == 2 * [predictor.endswith("_bias")]
    assert norm.weight is norm.bias is None
