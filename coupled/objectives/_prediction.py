"""Functions of the objectives without negatives: predict the projection of one view from that of another.

V views, B own images, A = V*B own anchors, P projection width.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from coupled.objectives import Head, Inputs, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32
from coupled.objectives._ranges import check_width

Predictor = Literal["mlp", "linear", "linear_bias", "symmetric", "symmetric_bias"]


def predicting(predictor: Predictor, hidden_dim: int, decay: float | None, *, trained: bool = True) -> Needs:
    """Declare a predictor on the projection before normalisation, and a target network unless `decay` is None."""
    head = Head(f"{predictor}_predictor", "unnormalised", "prediction", hidden_dim, trained)
    return Needs(("prediction", target_output(decay)), heads={"predictor": head}, target_decay=decay)


def symmetrised(tensors: Mapping[str, Tensor], predictor: Predictor) -> dict[str, Tensor]:
    """Return (W + W^T) / 2 for the matrix W of a symmetric predictor, for `after_step`; nothing for the others."""
    if not predictor.startswith("symmetric"):
        return {}
    weight_PP = tensors["predictor.weight"]
    return {"predictor.weight": (weight_PP + weight_PP.T) / 2}


def target_output(decay: float | None) -> str:
    """Return the output to predict: the target network's projection, or without a target network the projection."""
    return "projection" if decay is None else "target_projection"


def prediction_losses(inputs: Inputs, decay: float | None) -> AnchorLosses:
    """Return -cos(prediction from view v, target of view w), mean over the other views w: one loss for each view v.

    No gradient passes through the target. An image with one view does not count.
    """
    prediction_VBP = F.normalize(at_least_float32(inputs.outputs["prediction"]), dim=-1)
    target_VBP = at_least_float32(inputs.outputs[target_output(decay)]).detach()
    views = len(target_VBP)
    others_VBP = (target_VBP.sum(0) - target_VBP) / max(views - 1, 1)
    losses_A = -(prediction_VBP * others_VBP).sum(-1).flatten()
    return AnchorLosses(losses_A, torch.full_like(losses_A, views > 1, dtype=torch.bool))


def check_predictor(
    default_hidden: int, *, ema_decay: float | None = None, hidden_dim: int, predictor: Predictor, **_others: object
) -> None:
    """Raise ValueError for an invalid decay or width, or for a width of a predictor without a hidden layer."""
    check_decay(ema_decay=ema_decay)
    check_width(hidden_dim=hidden_dim)
    if predictor != "mlp" and hidden_dim != default_hidden:
        raise ValueError(
            f"hidden_dim: {hidden_dim} is not allowed; predictor {predictor} has no hidden layer; remove hidden_dim"
        )


def check_decay(*, ema_decay: float | None) -> None:
    """Raise ValueError unless the decay is from 0 to 1 or None."""
    if ema_decay is not None and not 0 <= ema_decay <= 1:
        raise ValueError(
            f"ema_decay: {ema_decay} is not allowed; give a decay from 0 to 1, or null for no target network"
        )


def second_moment(rows_MP: Tensor) -> dict[str, Tensor]:
    """Return sums over rows f: "outer", the sum of f f^T [P, P], not centred, and "rows", the number of rows."""
    rows_MP = at_least_float32(rows_MP).detach()
    with torch.autocast(rows_MP.device.type, enabled=False):
        return {"outer": rows_MP.T @ rows_MP, "rows": rows_MP.new_full((), len(rows_MP))}
