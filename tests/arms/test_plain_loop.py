"""Training equals a plain PyTorch loop: schedule, optimizer, order and views."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny
from torch import Tensor
from torch.nn import functional as F

import coupled
from coupled.stream.augment import augment, normalise
from coupled.stream.sampler import order
from coupled.stream.view_plan import view_plan

BASE_LR, MOMENTUM, DECAY, WARMUP, EPOCHS, STEPS, TAU = 0.06, 0.8, 1e-2, 1, 2, 4, 0.4
RUN: dict[str, Any] = {
    "epochs": EPOCHS,
    "precision": "float64",
    "dataset": tiny.FEW_IMAGES["dataset"],
    "batch": {"size": 72},  # 4 steps an epoch
    "temperature": TAU,
    "optimizer": {
        "name": "sgd",
        "base_lr": BASE_LR,
        "lr_scaling": "none",
        "momentum": MOMENTUM,
        "weight_decay": DECAY,
        "warmup_epochs": WARMUP,
        "clip_grad_norm": None,
    },
    "arms": {"cl": "nscl"},
}


def rate(step: int) -> float:
    """Linear from 0 during warm-up, then a half cosine that starts at its peak."""
    warm = WARMUP * STEPS
    if step <= warm:
        return BASE_LR * step / warm
    return BASE_LR / 2 * (1 + math.cos(math.pi * (step - 1 - warm) / (EPOCHS * STEPS - warm)))


def nscl(projections_VBP: Tensor, labels_B: Tensor) -> Tensor:
    """The mean over all views of -s(positive) + log of the sum over views of other classes of exp(s)."""
    z_MP, labels_M = F.normalize(projections_VBP.flatten(0, 1), dim=1), labels_B.repeat(2)
    similarities_MM, images = z_MP @ z_MP.T / TAU, len(labels_B)
    positive_M = torch.cat([similarities_MM.diag(images), similarities_MM.diag(-images)])
    same_class_MM = labels_M[:, None] == labels_M
    return (similarities_MM.masked_fill(same_class_MM, -math.inf).logsumexp(1) - positive_M).mean()


@pytest.mark.parametrize("together", [True, False], ids=["all views at once", "a view at a time"])
def test_a_run_equals_a_plain_pytorch_loop(tmp_path: Path, together: bool) -> None:
    """Optimizer and momentum are written out; a learning rate one step late, or a decayed batch norm, would show.

    So would, with a view at a time, running averages that are not updated once per view.
    """
    encoder = {**tiny.TINY["encoder"], "views_in_one_pass": together}
    tiny.train(tmp_path / "run", **RUN, encoder=encoder)
    run = coupled.open_run(tmp_path / "run")
    network, images, settings = run.network("cl", 0).double().train(), run.images("train"), run.settings
    parameters = dict(network.named_parameters())
    buffers = {name: torch.zeros_like(each) for name, each in parameters.items()}
    step = 0
    for epoch in range(1, EPOCHS + 1):
        plan = view_plan(settings.seed, epoch, len(images), settings.augmentation.plain())
        for places_B in order(settings.seed, epoch, images.labels_N.numpy(), 72):
            step += 1
            views = augment(images.images_N3HW[places_B], plan[places_B], settings.image_size)
            views = normalise(views, images.mean, images.std).double()
            passes = [views.flatten(0, 1)] if together else list(views)
            projections = torch.cat([network.projector(network.encoder(each)) for each in passes])
            loss = nscl(projections.unflatten(0, (2, -1)), images.labels_N[places_B])
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            with torch.no_grad():
                for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                    decay = DECAY if parameter.dim() > 1 else 0.0
                    buffers[name] = MOMENTUM * buffers[name] + gradient + decay * parameter
                    parameter -= rate(step) * buffers[name]
    trained, start = tiny.tensors(tmp_path / "run", "cl", EPOCHS), tiny.tensors(tmp_path / "run", "cl", 0)
    for name, value in network.state_dict().items():
        assert torch.allclose(trained[name].double(), value.double(), rtol=1e-5, atol=1e-6), name
    assert max(float((trained[name] - start[name]).abs().max()) for name in parameters) > 1e-2
