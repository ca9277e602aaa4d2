"""Optimizers with the parameter groups of SimCLR, and the learning rate as a pure function of the step."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

LR_EXPONENT = {"linear": 1.0, "sqrt": 0.5, "fourth_root": 0.25, "none": 0.0}


def peak_learning_rate(base_lr: float, lr_scaling: str, batch_size: int) -> float:
    """Return base_lr * (batch_size / 256)^e with e = 1, 1/2, 1/4 or 0; all rules agree at 256 images.

    `batch_size` is the size of the global batch; the world size has no influence.
    """
    return float(base_lr * (batch_size / 256) ** LR_EXPONENT[lr_scaling])


def learning_rate(
    step: int, *, peak: float, steps_per_epoch: int, epochs: int, warmup_epochs: float, schedule: str
) -> float:
    """Return the learning rate of the update in step `step`, counted from 1.

    Linear warm-up from peak/warm-up steps to peak, then `cosine`: peak * (1 + cos(pi * t)) / 2 with t from 0 at the
    end of the warm-up to 1 at the end of the run, or `constant`. Source: arXiv 2510.08852, section on training.
    """
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    if step <= warmup_steps:
        return peak * step / warmup_steps
    if schedule == "constant":
        return peak
    progress = (step - 1 - warmup_steps) / max(1, epochs * steps_per_epoch - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling, with the learning rate inside the momentum buffer.

        trust = coefficient * |w| / (|gradient| + weight_decay * |w|) in a group with `adapt`
        trust = 1 in the others, and for a parameter whose weight or gradient is 0
        buffer = momentum * buffer + lr * trust * (gradient + weight_decay * w);    w = w - buffer

    Source: You et al. 2017, arXiv 1708.03888, algorithm 1; SimCLR (arXiv 2002.05709) and the code of arXiv 2510.08852
    also have the learning rate inside the momentum buffer. timm's LARS multiplies by the rate after the momentum, which
    is a different optimizer when the rate changes.

    Args:
        groups: parameter groups with the keys "params", "weight_decay" and "adapt"; "lr" is set before every step.
        momentum: factor of the buffer.
        coefficient: the trust coefficient.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float, coefficient: float = 0.001) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "coefficient": coefficient})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients of the parameters."""
        assert closure is None
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in weights]
            if not weights:
                continue
            updates = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
            if group["adapt"]:
                torch._foreach_mul_(updates, _trust_ratios(weights, gradients, group))
            for weight in weights:
                if "momentum_buffer" not in self.state[weight]:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates, alpha=group["lr"])
            torch._foreach_sub_(weights, buffers)


def _trust_ratios(weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Return the trust ratio of each of P parameters, computed without waiting for the device."""
    weights_P, gradients_P = (torch.stack(list(torch._foreach_norm(each))) for each in (weights, gradients))
    ratios_P = group["coefficient"] * weights_P / (gradients_P + group["weight_decay"] * weights_P)
    return list(torch.where((weights_P > 0) & (gradients_P > 0), ratios_P, 1).unbind())


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    name: str,
    *,
    momentum: float | None = None,
    betas: tuple[float, float] | None = None,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Build LARS (trust coefficient 0.001) or SGD with `momentum`, or AdamW with `betas`, for the trainable parameters.

    Parameters of one dimension or none (batch-norm scales and shifts, biases) get neither weight decay nor LARS
    adaptation, as in SimCLR (arXiv 2002.05709, appendix B.6). The learning rate is 0 until it is set before each step.
    """
    trained = [p for p in parameters if p.requires_grad]
    matrices = {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay}
    vectors = {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0}
    if name == "adamw":
        assert betas is not None
        return torch.optim.AdamW([matrices, vectors], lr=0.0, betas=betas)
    assert momentum is not None
    if name == "lars":
        return Lars([{**matrices, "adapt": True}, {**vectors, "adapt": False}], momentum)
    return torch.optim.SGD([matrices, vectors], lr=0.0, momentum=momentum)
