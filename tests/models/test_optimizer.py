"""The learning rate as a function of the step, and the parameter groups."""

import math
from typing import Any

import pytest
import timm.optim
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from coupled.models.optimizer import build_optimizer, set_learning_rate
from coupled.models.schedules import learning_rate, peak_learning_rate

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
    rule = {"betas": (0.8, 0.95)} if name == "adamw" else {"momentum": 0.7}
    optimizer = build_optimizer(layer.parameters(), name, **rule, weight_decay=0.1)
    assert all(optimizer.defaults[key] == value for key, value in rule.items())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    layer.weight.grad, layer.bias.grad = torch.zeros(2, 3), torch.ones(2)
    before = layer.weight.detach().clone()
    optimizer.step()
    assert bool((layer.bias < 0).all())
    assert not torch.equal(layer.weight, before)  # decay alone moves the matrix


def test_lars_equals_its_formula_over_a_ramp_and_a_cosine() -> None:
    """An independent form, parameter by parameter, with the rate inside the buffer; a zero matrix
    moves by plain momentum.
    """
    rates = [learning_rate(step, **{**COSINE, "warmup_epochs": 2.0, "epochs": 6}) for step in range(1, 61)]
    moved, reference, _ = _trajectories(rates)
    for name, weight in moved.items():
        torch.testing.assert_close(weight, reference[name], rtol=1e-12, atol=1e-14, msg=name)


def test_the_rate_of_lars_enters_the_momentum_buffer() -> None:
    """Multiplying by the rate after the momentum, as timm's LARS does, ends elsewhere after a warm-up of 20 steps."""
    ramp = [learning_rate(step, **{**COSINE, "warmup_epochs": 2.0}) for step in range(1, 21)]
    moved, _, after = _trajectories(ramp)
    path, other = (ends["weight"] - ends["start"] for ends in (moved, after))
    assert float((path - other).norm() / path.norm()) > 0.1


class Counted(TorchDispatchMode):
    """Counts the operations of torch."""

    number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return function(*args, **(kwargs or {}))


def test_a_step_of_lars_and_clipping_launch_as_many_operations_for_any_number_of_parameters() -> None:
    """On a GPU a loop over a ResNet-50's 161 parameters takes longer than its arithmetic; clipping equals the loop."""
    counts = []
    for number in (2, 9):
        draw = torch.Generator().manual_seed(number)
        parameters = [nn.Parameter(torch.randn(3, size, generator=draw)) for size in range(1, number + 1)]
        optimizer = build_optimizer(parameters, "lars", momentum=0.9, weight_decay=0.01)
        for _ in range(2):  # the first step makes the buffers
            gradients = [torch.randn(each.shape, generator=draw) for each in parameters]
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            with Counted() as counted:
                norm = nn.utils.clip_grad_norm_(parameters, 0.5)
                optimizer.step()
        looped = [nn.Parameter(torch.zeros_like(each)) for each in gradients]
        for parameter, gradient in zip(looped, gradients, strict=True):
            parameter.grad = gradient
        assert torch.equal(nn.utils.clip_grad_norm_(looped, 0.5, foreach=False), norm)
        assert all(torch.equal(one.grad, other.grad) for one, other in zip(looped, parameters, strict=True))
        counts.append(counted.number)
    assert counts[0] == counts[1]


def _trajectories(rates: list[float]) -> tuple[dict[str, torch.Tensor], ...]:
    """Parameters after steps with these rates by `build_optimizer`'s LARS, by its formula, and by timm's LARS."""
    draw = torch.Generator().manual_seed(0)
    start = {
        "weight": torch.randn(4, 3, generator=draw, dtype=torch.float64),
        "zero": torch.zeros(2, 2, dtype=torch.float64),
        "scale": torch.ones(3, dtype=torch.float64),
    }
    ours, timms = ({name: nn.Parameter(each.clone()) for name, each in start.items()} for _ in range(2))
    optimizer = build_optimizer(ours.values(), "lars", momentum=0.9, weight_decay=0.01)
    matrices = {"params": [timms["weight"], timms["zero"]], "weight_decay": 0.01, "always_adapt": True}
    after = timm.optim.Lars([matrices, {"params": [timms["scale"]]}], lr=0.0, momentum=0.9)
    slow = {name: each.clone() for name, each in start.items()}
    buffers = {name: torch.zeros_like(each) for name, each in start.items()}
    for lr in rates:
        for name, weight in slow.items():
            gradient = torch.randn(weight.shape, generator=draw, dtype=torch.float64)
            for each in (ours, timms):
                each[name].grad = gradient.clone()
            decay = 0.01 if weight.dim() > 1 else 0.0
            sizes = weight.norm().item(), gradient.norm().item()
            adapted = weight.dim() > 1 and min(sizes) > 0
            trust = 0.001 * sizes[0] / (sizes[1] + decay * sizes[0]) if adapted else 1.0
            buffers[name] = 0.9 * buffers[name] + lr * trust * (gradient + decay * weight)
        slow = {name: weight - buffers[name] for name, weight in slow.items()}
        for stepping in (optimizer, after):
            for group in stepping.param_groups:
                group["lr"] = lr
            stepping.step()
    ends = [{name: each.detach() for name, each in parameters.items()} for parameters in (ours, slow, timms)]
    return tuple({**each, "start": start["weight"]} for each in ends)


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop", "lars"])
@pytest.mark.parametrize("exclude_1d", [True, False])
def test_two_steps_equal_an_independent_form_with_all_groups(name: str, exclude_1d: bool) -> None:
    """Heads with their rate and decay, and vectors with or without decay: parameter by parameter."""
    draw = torch.Generator().manual_seed(1)
    shapes = {"weight": (4, 3), "scale": (3,), "head": (2, 3), "bias": (2,)}
    start = {key: torch.randn(shape, generator=draw, dtype=torch.float64) for key, shape in shapes.items()}
    ours = {key: nn.Parameter(each.clone()) for key, each in start.items()}
    rule: dict[str, Any] = {"lars": {"momentum": 0.9}, "sgd": {"momentum": 0.9}, "adamw": {"betas": (0.8, 0.95)}}.get(
        name, {"momentum": 0.5, "alpha": 0.9}
    )
    options = {"exclude_1d": exclude_1d, "head_lr_multiplier": 10.0, "head_weight_decay": 0.03}
    optimizer = build_optimizer(
        ours.values(), name, **rule, weight_decay=0.01, heads=[ours["head"], ours["bias"]], **options
    )
    slow = {key: Slow(name, each, rule) for key, each in start.items()}
    for lr in (0.1, 0.03):
        set_learning_rate(optimizer, lr)
        for key, each in ours.items():
            each.grad = torch.randn(each.shape, generator=draw, dtype=torch.float64)
            decay = 0.03 if key in ("head", "bias") else 0.01
            slow[key](
                each.grad,
                lr * (10 if key in ("head", "bias") else 1),
                decay if each.dim() > 1 or not exclude_1d else 0.0,
                adapt=each.dim() > 1 or not exclude_1d,
            )
        optimizer.step()
    for key, each in ours.items():
        torch.testing.assert_close(each.detach(), slow[key].weight, rtol=1e-10, atol=1e-12, msg=key)
        assert not torch.equal(each.detach(), start[key])


def test_default_settings_of_heads_make_no_groups() -> None:
    """The order of a checkpoint's tensors, and the bits of a run, stay those of a run without these settings."""
    layer = nn.Linear(3, 2)
    optimizer = build_optimizer(layer.parameters(), "sgd", momentum=0.9, weight_decay=0.1, heads=layer.parameters())
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]


class Slow:
    """One parameter under an optimizer, written out from its formula."""

    def __init__(self, name: str, weight: torch.Tensor, rule: dict[str, Any]) -> None:
        self.name, self.weight, self.rule, self.steps = name, weight.clone(), rule, 0
        self.first, self.second = torch.zeros_like(weight), torch.zeros_like(weight)

    def __call__(self, gradient: torch.Tensor, lr: float, decay: float, adapt: bool) -> None:
        self.steps += 1
        decayed = gradient + decay * self.weight
        if self.name == "adamw":
            one, two = self.rule["betas"]
            self.weight = self.weight * (1 - lr * decay)
            self.first = one * self.first + (1 - one) * gradient
            self.second = two * self.second + (1 - two) * gradient**2
            first, second = self.first / (1 - one**self.steps), self.second / (1 - two**self.steps)
            self.weight = self.weight - lr * first / (second.sqrt() + 1e-8)
        elif self.name == "rmsprop":
            self.second = self.rule["alpha"] * self.second + (1 - self.rule["alpha"]) * decayed**2
            self.first = self.rule["momentum"] * self.first + decayed / (self.second.sqrt() + 1e-8)
            self.weight = self.weight - lr * self.first
        elif self.name == "lars":
            size = self.weight.norm()
            trust = 0.001 * size / (gradient.norm() + decay * size) if adapt else 1.0
            self.first = 0.9 * self.first + lr * trust * decayed
            self.weight = self.weight - self.first
        else:
            self.first = 0.9 * self.first + decayed
            self.weight = self.weight - lr * self.first
