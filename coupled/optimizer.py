"""Optimizers with the groups of SimCLR, and the learning rate as a pure function of the step."""

import math
from collections.abc import Iterable

import timm.optim
import torch
from torch import nn

LR_EXPONENT = {"linear": 1.0, "sqrt": 0.5, "fourth_root": 0.25, "none": 0.0}


def peak_learning_rate(base_lr: float, lr_scaling: str, batch_size: int) -> float:
    """base_lr * (batch_size / 256)^e, e = 1, 1/2, 1/4 or 0: the rules agree at 256 images.

    `batch_size` is the global batch; the world size never enters.
    """
    return float(base_lr * (batch_size / 256) ** LR_EXPONENT[lr_scaling])


def learning_rate(
    step: int, *, peak: float, steps_per_epoch: int, epochs: int, warmup_epochs: float, schedule: str
) -> float:
    """The rate of the update that ends step `step` (1 = the first).

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


def build_optimizer(
    parameters: Iterable[nn.Parameter], name: str, *, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """LARS (timm's, trust coefficient 0.001), SGD or AdamW over the parameters that ask for a gradient.

    Parameters of one dimension or none (batch-norm scales and shifts, biases) get neither weight decay nor LARS
    adaptation, the rule of SimCLR (arXiv 2002.05709, appendix B.6). The rate is set before every step; it is 0 until
    then.
    """
    trained = [p for p in parameters if p.requires_grad]
    matrices = {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay}
    vectors = {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0}
    groups = [matrices, vectors]
    if name == "lars":
        # timm adapts a group with weight decay; always_adapt keeps the matrices adapted when the decay is set to 0
        groups = [{**matrices, "always_adapt": True}, {**vectors, "always_adapt": False}]
        lars: torch.optim.Optimizer = timm.optim.Lars(groups, lr=0.0, momentum=momentum, trust_coeff=0.001)
        return lars
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum)
    return torch.optim.AdamW(groups, lr=0.0, betas=(momentum, 0.999))
