"""The squared error between a linear prediction of one view and the projection of another: the loss of P5's theory.

V views, B own images, A = V*B own anchors, P projection width.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32, mean_over_counted
from coupled.objectives._prediction import check_decay, predicting, symmetrised, target_output

LinearPredictor = Literal["linear", "linear_bias", "symmetric", "symmetric_bias"]


def check(*, ema_decay: float | None, **_others: Any) -> None:
    """Raise ValueError for a decay that is out of range."""
    check_decay(ema_decay=ema_decay)


def needs(*, predictor: LinearPredictor = "linear", ema_decay: float | None = None) -> Needs:
    """Declare the predictor and what it predicts, before normalisation."""
    return replace(
        predicting(predictor, 0, ema_decay), outputs=("prediction", target_output(ema_decay, "unnormalised"))
    )


def after_step(
    tensors: Mapping[str, Tensor],
    sums: Mapping[str, Tensor],
    step: int,
    *,
    predictor: LinearPredictor,
    **_others: object,
) -> dict[str, Tensor]:
    """Keep the matrix of a symmetric predictor symmetric."""
    return symmetrised(tensors, predictor)


def per_anchor(
    inputs: Inputs, *, predictor: LinearPredictor = "linear", ema_decay: float | None = None
) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean. An image with one view does not count."""
    prediction_VBP = at_least_float32(inputs.outputs["prediction"])
    target_VBP = at_least_float32(inputs.outputs[target_output(ema_decay, "unnormalised")]).detach()
    views = len(target_VBP)
    errors = [(prediction_VBP - target_VBP.roll(shift, 0)).square().sum(-1) for shift in range(1, views)]
    losses_A = sum(errors, torch.zeros_like(prediction_VBP[..., 0])).flatten() / (2 * max(views - 1, 1))
    return AnchorLosses(losses_A, torch.full_like(losses_A, views > 1, dtype=torch.bool))


def prediction_mse(inputs: Inputs, *, predictor: LinearPredictor = "linear", ema_decay: float | None = None) -> Loss:
    """Return half the squared error of a linear prediction of one view from another, with stop-gradient.

        1/2 ||W_p f_v - stopgrad t_w||^2, mean over all views v and over the other views w of the same image

    f is the projection before normalisation, W_p the predictor. t is the projection f itself, or with `ema_decay` that
    of a target network as in `byol`. It differs from `simsiam` and `byol` in the norms only: the cosine ignores them.
    With a linear encoder and `projector: {num_layers: 0, last_norm: false}`, it is the model of
    `coupled directpred-theory`. If all projections are 0, the loss is minimal.

    Args:
        inputs: reads the "prediction" and "unnormalised" or "target_unnormalised" of this process [V, B, P].
        predictor: "linear" or "linear_bias", a matrix without or with bias; "symmetric" or "symmetric_bias", the same
            with the matrix made symmetric at the start and after every step. The loss itself does not use it.
        ema_decay: decay of the target network per step, or None for no target network.

    Returns:
        The mean over the counted anchors of this process (scalar, in squared units of the projection), how many were
        counted and how many were left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if `ema_decay` is neither None nor from 0 to 1; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> f = torch.tensor([[[1.0, 2.0]], [[1.0, 0.0]]])  # two views of one image
        >>> labels = torch.zeros(1, dtype=torch.int64)  # not read
        >>> float(prediction_mse(Inputs({"prediction": f, "unnormalised": f}, {}, labels, labels)).mean)
        2.0

    Source: Tian, Chen & Ganguli 2021, arXiv 2102.06810, eq. 1.
    """
    return mean_over_counted(per_anchor(inputs, predictor=predictor, ema_decay=ema_decay))
