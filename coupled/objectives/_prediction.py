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

Predictor = Literal[
    "mlp",
    "linear",
    "linear_bias",
    "symmetric",
    "symmetric_bias",
    "two_layer",
    "two_layer_bias",
    "symmetric_two_layer",
    "symmetric_two_layer_bias",
]


def predicting(predictor: Predictor, hidden_dim: int, decay: float | None, *, trained: bool = True) -> Needs:
    """Declare a predictor on the projection before normalisation, and a target network unless `decay` is None."""
    head = Head(f"{predictor}_predictor", "unnormalised", "prediction", hidden_dim, trained)
    return Needs(("prediction", target_output(decay)), heads={"predictor": head}, target_decay=decay)


def symmetrised(tensors: Mapping[str, Tensor], predictor: str) -> dict[str, Tensor]:
    """Return (W + W^T) / 2 for the matrix W of a symmetric predictor, for `after_step`; nothing for the others.

    Two layers W_1 and W_2 get the weights (W_1 + W_2^T) / 2 and its transpose.
    """
    if not predictor.startswith("symmetric"):
        return {}
    if "two_layer" not in predictor:
        weight_PP = tensors["predictor.weight"]
        return {"predictor.weight": (weight_PP + weight_PP.T) / 2}
    weight_HP = (tensors["predictor.0.weight"] + tensors["predictor.3.weight"].T) / 2
    return {"predictor.0.weight": weight_HP, "predictor.3.weight": weight_HP.T}


def target_output(decay: float | None, output: str = "projection") -> str:
    """Return the name of the output to predict: that of the target network, or without one that of the network."""
    return output if decay is None else f"target_{output}"


def prediction_losses(inputs: Inputs, decay: float | None, *, asymmetric: bool = False) -> AnchorLosses:
    """Return -cos(prediction from view v, target of view w), mean over the other views w: one loss for each view v.

    If `asymmetric`, only the first view predicts, and there are losses for it alone. No gradient passes through the
    target. An image with one view does not count.
    """
    prediction_VBP = F.normalize(at_least_float32(inputs.outputs["prediction"]), dim=-1)
    target_VBP = at_least_float32(inputs.outputs[target_output(decay)]).detach()
    losses_A = -(prediction_VBP * _others(target_VBP)).sum(-1)[: predicting_views(asymmetric)].flatten()
    return AnchorLosses(losses_A, torch.full_like(losses_A, len(target_VBP) > 1, dtype=torch.bool))


def check_predictor(
    default_hidden: int, *, ema_decay: float | None = None, hidden_dim: int, predictor: Predictor, **_others: object
) -> None:
    """Raise ValueError for an invalid decay or width, or for a width of a predictor without a hidden layer."""
    check_decay(ema_decay=ema_decay)
    check_width(hidden_dim=hidden_dim)
    if predictor != "mlp" and "two_layer" not in predictor and hidden_dim != default_hidden:
        raise ValueError(
            f"hidden_dim: {hidden_dim} is not allowed; predictor {predictor} has no hidden layer; remove hidden_dim"
        )


def check_decay(*, ema_decay: float | None) -> None:
    """Raise ValueError unless the decay is from 0 to 1 or None."""
    if ema_decay is not None and not 0 <= ema_decay <= 1:
        raise ValueError(
            f"ema_decay: {ema_decay} is not allowed; give a decay from 0 to 1, or null for no target network"
        )


def second_moments(
    inputs_VBP: Tensor, targets_VBP: Tensor | None = None, *, asymmetric: bool = False
) -> dict[str, Tensor]:
    """Return sums over the predictor's inputs f: "outer", the sum of f f^T [P, P], and "rows", their number.

    With targets also "cross", the sum of t f^T, where t is the mean target of the other views. Not centred. If
    `asymmetric`, only the first view predicts.
    """
    views = predicting_views(asymmetric)
    rows_MP = at_least_float32(inputs_VBP).detach()[:views].flatten(0, 1)
    with torch.autocast(rows_MP.device.type, enabled=False):
        sums = {"outer": rows_MP.T @ rows_MP, "rows": rows_MP.new_full((), len(rows_MP))}
        if targets_VBP is not None:
            sums["cross"] = _others(at_least_float32(targets_VBP).detach())[:views].flatten(0, 1).T @ rows_MP
    return sums


def predicting_views(asymmetric: bool) -> int | None:
    """Return how many views predict the others, the first ones; None: all."""
    return 1 if asymmetric else None


def _others(targets_VBP: Tensor) -> Tensor:
    """Return for each view the mean target of the other views; 0 if there is none."""
    return (targets_VBP.sum(0) - targets_VBP) / max(len(targets_VBP) - 1, 1)
