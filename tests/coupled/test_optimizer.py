"""The learning rate as a function of the step, and the parameter groups."""

import math

import pytest
import torch
from torch import nn

from coupled.optimizer import build_optimizer, learning_rate, peak_learning_rate

COSINE = {"peak": 2.0, "steps_per_epoch": 10, "epochs": 20, "warmup_epochs": 5.0, "schedule": "cosine"}


def test_scaling_rules_agree_at_256_images() -> None:
    """The anchor: a comparison of rules starts from the same rate."""
    assert {peak_learning_rate(0.3, rule, 256) for rule in ("linear", "sqrt", "fourth_root", "none")} == {0.3}
    found = [peak_learning_rate(0.3, rule, 4096) for rule in ("linear", "sqrt", "fourth_root", "none")]
    assert found == pytest.approx([4.8, 1.2, 0.6, 0.3])


def test_the_rate_warms_up_linearly_and_falls_as_a_half_cosine() -> None:
    """Hand-computed points of the papers' schedule."""
    rates = [learning_rate(step, **COSINE) for step in range(1, 201)]
    assert rates[0] == 2.0 / 50
    assert rates[49] == rates[50] == 2.0
    assert rates[51] == pytest.approx(1 + math.cos(math.pi / 150))
    assert rates[125] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(1 + math.cos(math.pi * 149 / 150))
    assert rates[50:] == sorted(rates[50:], reverse=True)


def test_without_warmup_the_first_step_has_the_peak_rate() -> None:
    """No division by zero warm-up steps; `constant` stays at the peak."""
    assert learning_rate(1, **{**COSINE, "warmup_epochs": 0}) == 2.0
    assert learning_rate(200, **{**COSINE, "schedule": "constant"}) == 2.0


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_vectors_have_no_decay_and_zero_parameters_move(name: str) -> None:
    """Batch-norm shifts start at zero; LARS with a `>= 0` guard never moves them."""
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.bias)
    optimizer = build_optimizer(layer.parameters(), name, momentum=0.9, weight_decay=0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    layer.weight.grad, layer.bias.grad = torch.zeros(2, 3), torch.ones(2)
    before = layer.weight.detach().clone()
    optimizer.step()
    assert bool((layer.bias < 0).all())
    assert not torch.equal(layer.weight, before)  # decay alone moves the matrix


def test_lars_equals_its_formula() -> None:
    """w - lr * buffer, buffer = 0.9 buffer + trust * |w| / (|g| + decay |w|) (g + decay w); vectors plain momentum."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).double()
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = build_optimizer(layer.parameters(), "lars", momentum=0.9, weight_decay=0.01)
    buffers = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for lr in (0.5, 0.25, 0.125):
        gradients = [torch.randn_like(weight), torch.randn_like(bias)]
        layer.weight.grad, layer.bias.grad = (g.clone() for g in gradients)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        rate = 0.001 * weight.norm() / (gradients[0].norm() + 0.01 * weight.norm() + 1e-8)
        buffers[0] = 0.9 * buffers[0] + rate * (gradients[0] + 0.01 * weight)
        buffers[1] = 0.9 * buffers[1] + gradients[1]
        weight, bias = weight - lr * buffers[0], bias - lr * buffers[1]
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-12, atol=0)
    torch.testing.assert_close(layer.bias.detach(), bias, rtol=1e-12, atol=0)
