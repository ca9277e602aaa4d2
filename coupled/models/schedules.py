"""The learning rate and the decay of target networks, as pure functions of the step."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

LR_EXPONENT = {"linear": 1.0, "sqrt": 0.5, "fourth_root": 0.25, "none": 0.0}


def peak_learning_rate(base_lr: float, lr_scaling: str, batch_size: int) -> float:
    """Return base_lr * (batch_size / 256)^e with e = 1, 1/2, 1/4 or 0; all rules agree at 256 images.

    `batch_size` is the size of the global batch; the world size has no influence.
    """
    return float(base_lr * (batch_size / 256) ** LR_EXPONENT[lr_scaling])


def learning_rate(
    step: int,
    *,
    peak: float,
    steps_per_epoch: int,
    epochs: int,
    warmup_epochs: float,
    schedule: str,
    milestones: Sequence[int] | None = None,
    gamma: float | None = None,
    decay_epochs: float | None = None,
) -> float:
    """Return the learning rate of the update in step `step`, counted from 1.

    Linear warm-up from peak/warm-up steps to peak, then by `schedule`:

        cosine: peak * (1 + cos(pi * t)) / 2 with t from 0 at the end of the warm-up to 1 at the end of the run
        constant: peak
        step: peak * gamma^k after k of the `milestones`, in completed epochs
        warmup_stable_decay: peak * min(1, r / D) with r steps left, this one included, and D steps of decay
        cosine_per_epoch: peak * min(1, (e + 1) / warmup_epochs) * (1 + cos(pi * e / epochs)) / 2 with e completed
            epochs; the warm-up is a factor, and the rate is constant within an epoch

    Source: arXiv 2510.08852, section on training, and its code for `cosine_per_epoch`, which writes 3.1416 for pi.
    """
    done = (step - 1) // steps_per_epoch
    if schedule == "cosine_per_epoch":
        warm = min(1.0, (done + 1) / warmup_epochs) if warmup_epochs else 1.0
        return peak * warm * 0.5 * (1 + math.cos(math.pi * done / epochs))
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    if step <= warmup_steps:
        return peak * step / warmup_steps
    if schedule == "constant":
        return peak
    if schedule == "step":
        assert milestones is not None
        assert gamma is not None
        return peak * gamma ** sum(done >= milestone for milestone in milestones)
    steps = epochs * steps_per_epoch
    if schedule == "warmup_stable_decay":
        assert decay_epochs is not None
        return peak * min(1.0, (steps - step + 1) / max(1, round(decay_epochs * steps_per_epoch)))
    progress = (step - 1 - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def schedule_of(*, base_lr: float, lr_scaling: str, batch_size: int, **options: Any) -> Callable[[int], float]:
    """Return the learning rate as a function of the step; `options` are those of `learning_rate` but for `peak`."""
    return partial(learning_rate, peak=peak_learning_rate(base_lr, lr_scaling, batch_size), **options)


def target_decay(step: int, *, start: float, steps: int, schedule: str) -> float:
    """Return the decay of the target network in step `step`, counted from 1, of a run of `steps` steps.

    `constant`: `start`. `cosine`: 1 - (1 - start) * (cos(pi * k / steps) + 1) / 2 with k completed steps, from `start`
    to nearly 1. Source: Grill et al. 2020, arXiv 2006.07733, section 3.2.
    """
    if schedule == "constant":
        return start
    return 1 - (1 - start) * (math.cos(math.pi * (step - 1) / steps) + 1) / 2
