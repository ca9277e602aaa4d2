"""BYOL: predict the target network's projection of one view from another view; no negatives."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, mean_over_counted
from coupled.objectives._prediction import Predictor, check_predictor, predicting, prediction_losses, symmetrised

HIDDEN = 4096  # default width of the predictor's hidden layer
ADDED = ("asymmetric",)  # options that are recorded only if they do not have their default


def check(**options: Any) -> None:
    """Raise ValueError for an option that is out of range or that the predictor does not have."""
    check_predictor(HIDDEN, **options)


def needs(
    *, predictor: Predictor = "mlp", hidden_dim: int = HIDDEN, ema_decay: float | None = 0.996, **_options: object
) -> Needs:
    """Declare the predictor and the target network; nothing of the global batch."""
    return predicting(predictor, hidden_dim, ema_decay)


def after_step(
    tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor], step: int, *, predictor: Predictor, **_others: object
) -> dict[str, Tensor]:
    """Keep the matrix of a symmetric predictor symmetric."""
    return symmetrised(tensors, predictor)


def per_anchor(
    inputs: Inputs, *, ema_decay: float | None = 0.996, asymmetric: bool = False, **_options: object
) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    return prediction_losses(inputs, ema_decay, asymmetric=asymmetric)


def byol(
    inputs: Inputs,
    *,
    predictor: Predictor = "mlp",
    hidden_dim: int = HIDDEN,
    ema_decay: float | None = 0.996,
    asymmetric: bool = False,
) -> Loss:
    """Return the BYOL loss: predict the target network's projection of one view from another view.

        -cos(q(f_v), t_w), mean over all views v and over the other views w of the same image

    The minimum is -1. f is the projection and q the predictor, as in `simsiam`. t is the projection of the target
    network, a copy of encoder and projector. After every step its weights are updated, t <- m t + (1 - m) f with m =
    `ema_decay`; its batch norm uses the statistics of the batch. With `ema_decay: null` there is no target network, and
    t is the projection f without gradient. The decay is constant, or rises to 1 as in the paper:
    `arms.<name>.target_schedule: cosine`.

    Args:
        inputs: reads the "prediction" and the "target_projection" of this process [V, B, P].
        predictor: "mlp"; "linear" or "linear_bias", a matrix without or with bias; "symmetric" or "symmetric_bias", the
            same with the matrix W replaced by (W + W^T) / 2 at the start and after every step; "two_layer" or
            "two_layer_bias", as "mlp" with a batch norm without scale and shift and with no biases or biases in both
            layers; "symmetric_two_layer" or "symmetric_two_layer_bias", the same with W_1 and W_2^T replaced by their
            mean. The loss itself does not use it.
        hidden_dim: width of the hidden layer, 1 to 65536.
        ema_decay: decay of the target network per step, or None for no target network.
        asymmetric: whether only the first view predicts the others; otherwise each view does.

    Returns:
        The mean over the counted anchors of this process (scalar, no unit), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if `ema_decay` is neither None nor from 0 to 1, `hidden_dim` is not from 1 to 65536, or `hidden_dim`
            is not the default with a predictor of one matrix; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three unit vectors
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> outputs = {"prediction": z, "target_projection": z}
        >>> round(float(byol(Inputs(outputs, {}, labels, labels)).mean), 4)
        -1.0

    Source: Grill et al. 2020, arXiv 2006.07733, eq. 1 and 2. Their loss of two views is 4 + 4 times this one.
    """
    return mean_over_counted(per_anchor(inputs, ema_decay=ema_decay, asymmetric=asymmetric))
