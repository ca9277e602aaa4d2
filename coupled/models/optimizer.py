"""Optimizers and their parameter groups: matrices and vectors, of the shared parts and of the heads."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


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
    alpha: float | None = None,
    weight_decay: float,
    exclude_1d: bool = True,
    heads: Iterable[nn.Parameter] = (),
    head_lr_multiplier: float = 1.0,
    head_weight_decay: float | None = None,
) -> torch.optim.Optimizer:
    """Build LARS (trust coefficient 0.001) or SGD with `momentum`, AdamW with `betas`, or RMSProp with `alpha` and
    `momentum`, for the trainable parameters.

    With `exclude_1d`, parameters of one dimension or none (batch-norm scales and shifts, biases) get neither weight
    decay nor LARS adaptation, as in SimCLR (arXiv 2002.05709, appendix B.6). The parameters `heads`, which are among
    `parameters`, have a learning rate `head_lr_multiplier` times as high, and `head_weight_decay` unless it is None.
    The learning rate is 0 until `set_learning_rate` sets it before each step.
    """
    in_heads = {id(parameter) for parameter in heads}
    trained = [p for p in parameters if p.requires_grad]
    if head_lr_multiplier == 1 and head_weight_decay in (None, weight_decay):
        in_heads = set()  # no separate groups: foreach operations over fewer, longer lists
    parts = [([p for p in trained if id(p) not in in_heads], weight_decay, 1.0)]
    if in_heads:
        decay = weight_decay if head_weight_decay is None else head_weight_decay
        parts.append(([p for p in trained if id(p) in in_heads], decay, head_lr_multiplier))
    groups: list[dict[str, Any]] = []
    for part, decay, multiplier in parts:
        own = {"lr_multiplier": multiplier}
        matrices, vectors = ([p for p in part if (p.dim() > 1) == wanted] for wanted in (True, False))
        groups.append({**own, "params": matrices, "weight_decay": decay, "adapt": True})
        excluded = {"weight_decay": 0.0, "adapt": False} if exclude_1d else {"weight_decay": decay, "adapt": True}
        groups.append({**own, "params": vectors, **excluded})
    if name == "adamw":
        assert betas is not None
        return torch.optim.AdamW(groups, lr=0.0, betas=betas)
    assert momentum is not None
    if name == "lars":
        return Lars(groups, momentum)
    if name == "rmsprop":
        assert alpha is not None
        return torch.optim.RMSprop(groups, lr=0.0, alpha=alpha, momentum=momentum, foreach=True)
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group: `lr` times the group's multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]
