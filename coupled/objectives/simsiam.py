"""SimSiam: predict one view from another with stop-gradient; no negatives, no target network."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from coupled.objectives import Inputs, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, mean_over_counted
from coupled.objectives._prediction import Predictor, check_predictor, predicting, prediction_losses, symmetrised

HIDDEN = 512  # default width of the predictor's hidden layer
ADDED = ("asymmetric",)  # options that are recorded only if they do not have their default


def check(**options: Any) -> None:
    """Raise ValueError for an option that is out of range or that the predictor does not have."""
    check_predictor(HIDDEN, **options)


def needs(*, predictor: Predictor = "mlp", hidden_dim: int = HIDDEN, **_options: object) -> Needs:
    """Declare the predictor and the projection of this process; nothing of the global batch."""
    return predicting(predictor, hidden_dim, None)


def after_step(
    tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor], step: int, *, predictor: Predictor, **_others: object
) -> dict[str, Tensor]:
    """Keep the matrix of a symmetric predictor symmetric."""
    return symmetrised(tensors, predictor)


def per_anchor(inputs: Inputs, *, asymmetric: bool = False, **_options: object) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    return prediction_losses(inputs, None, asymmetric=asymmetric)


def simsiam(
    inputs: Inputs, *, predictor: Predictor = "mlp", hidden_dim: int = HIDDEN, asymmetric: bool = False
) -> Loss:
    """Return the SimSiam loss: predict the projection of one view from another view, with stop-gradient.

        -cos(q(f_v), stopgrad f_w), mean over all views v and over the other views w of the same image

    The minimum is -1. f is the projection and q the predictor. The predictor "mlp" is a linear layer of width
    `hidden_dim`, batch norm, ReLU and a linear layer; "linear" is one matrix without `hidden_dim`. If all projections
    collapse to one point, the loss is minimal.

    Args:
        inputs: reads the "prediction" and the "projection" of this process [V, B, P].
        predictor: "mlp"; "linear" or "linear_bias", a matrix without or with bias; "symmetric" or "symmetric_bias", the
            same with the matrix W replaced by (W + W^T) / 2 at the start and after every step; "two_layer" or
            "two_layer_bias", as "mlp" with a batch norm without scale and shift and with no biases or biases in both
            layers; "symmetric_two_layer" or "symmetric_two_layer_bias", the same with W_1 and W_2^T replaced by their
            mean. The loss itself does not use it.
        hidden_dim: width of the hidden layer, 1 to 65536.
        asymmetric: whether only the first view predicts the others; otherwise each view does.

    Returns:
        The mean over the counted anchors of this process (scalar, no unit), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if `hidden_dim` is not from 1 to 65536, or it is not the default with a predictor of one matrix;
            raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three unit vectors
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> outputs = {"prediction": z, "projection": z}
        >>> round(float(simsiam(Inputs(outputs, {}, labels, labels)).mean), 4)
        -1.0

    Source: Chen & He 2021, arXiv 2011.10566, eq. 1 to 4; with two views this is their symmetrised loss, and
    `asymmetric` the loss of their section 4.6.
    """
    return mean_over_counted(per_anchor(inputs, asymmetric=asymmetric))
