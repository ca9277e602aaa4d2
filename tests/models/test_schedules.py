"""Schedules of the learning rate and of the decay of target networks."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from coupled.models.schedules import learning_rate, schedule_of, target_decay

STEPS = 10  # of an epoch


def rates(schedule: str, epochs: int, warmup: float, **options: Any) -> list[float]:
    """The rates of all steps of a run."""
    run = {"base_lr": 2.0, "lr_scaling": "linear", "batch_size": 256, "steps_per_epoch": STEPS, "epochs": epochs}
    rate = schedule_of(**run, warmup_epochs=warmup, schedule=schedule, **options)
    return [rate(step) for step in range(1, epochs * STEPS + 1)]


def of_torch(build: Any, count: int, peak: float = 2.0) -> list[float]:
    """The rates of a scheduler of torch that advances after every step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler, found = build(optimizer), []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_the_schedule_step_equals_multi_step_lr_of_torch() -> None:
    """A milestone that acts one step late keeps the old rate for a step of the new epoch."""
    milestones = [3, 7]
    wanted = of_torch(
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [STEPS * m for m in milestones], gamma=0.2), 10 * STEPS
    )
    assert rates("step", 10, 0, milestones=milestones, gamma=0.2) == pytest.approx(wanted, abs=1e-12)


def test_warmup_stable_decay_equals_linear_schedules_of_torch() -> None:
    """The last step has a positive rate, and the first step of the decay the peak rate."""
    warm, stable, decay = 2 * STEPS, 5 * STEPS, 3 * STEPS
    rise = of_torch(
        lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=1 / warm, end_factor=1, total_iters=warm - 1), warm
    )
    fall = of_torch(
        lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=1, end_factor=0, total_iters=decay), decay
    )
    found = rates("warmup_stable_decay", 10, 2, decay_epochs=3)
    assert found == pytest.approx([*rise, *[2.0] * stable, *fall], abs=1e-12)
    assert found[-1] == pytest.approx(2.0 / decay)


def test_cosine_per_epoch_equals_the_formula_of_the_published_code() -> None:
    """min(1, (e + 1) / 10) * (1 + cos(pi e / T)) / 2 with e from 0, set once for each epoch."""
    wanted = of_torch(
        lambda o: torch.optim.lr_scheduler.LambdaLR(
            o, lambda e: min(1, (e + 1) / 10) * 0.5 * (1 + math.cos(math.pi * e / 40))
        ),
        40,
    )
    assert rates("cosine_per_epoch", 40, 10) == pytest.approx(
        [each for each in wanted for _ in range(STEPS)], abs=1e-12
    )
    assert rates("cosine_per_epoch", 2, 0)[0] == 2.0


def test_the_decay_of_byol_rises_from_its_start_to_one() -> None:
    """1 - (1 - t) (cos(pi k / K) + 1) / 2 for k from 0 to K - 1, against torch's cosine of the rate 1 - decay."""
    wanted = of_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50), 50, peak=0.004)
    found = [target_decay(step, start=0.996, steps=50, schedule="cosine") for step in range(1, 51)]
    assert [1 - each for each in found] == pytest.approx(wanted, abs=1e-9)
    assert target_decay(50, start=0.996, steps=50, schedule="constant") == 0.996
    assert found == sorted(found)


def test_schedules_without_an_end_do_not_depend_on_the_epochs() -> None:
    """`epochs` may then change when a run is continued."""
    for schedule in ("constant", "step"):
        options = {"peak": 1.0, "steps_per_epoch": 4, "warmup_epochs": 1, "schedule": schedule}
        options |= {"milestones": (2, 3), "gamma": 0.5}
        short, long = ([learning_rate(s, epochs=e, **options) for s in range(1, 17)] for e in (4, 9))
        assert short == long
