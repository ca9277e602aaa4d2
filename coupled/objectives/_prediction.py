"""What the objectives without negatives share: predict the projection of one view from that of another.

V views, B own images, A = V*B own anchors, P projection width.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from coupled.objectives import Head, Inputs, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32

Predictor = Literal["mlp", "linear"]


def predicting(predictor: Predictor, hidden_dim: int, decay: float | None, *, trained: bool = True) -> Needs:
    """A predictor on the projection before it is normalised, and a target network unless `decay` is None."""
    head = Head(f"{predictor}_predictor", "unnormalised", "prediction", hidden_dim, trained)
    return Needs(("prediction", target_output(decay)), heads={"predictor": head}, target_decay=decay)


def target_output(decay: float | None) -> str:
    """The output that is predicted: the target network's projection, or without such a network the own one."""
    return "projection" if decay is None else "target_projection"


def prediction_losses(inputs: Inputs, decay: float | None) -> AnchorLosses:
    """-cos(prediction from view v, target of view w), mean over the other views w of the image: one loss a view v.

    No gradient passes the target. An image with one view has nothing to predict: it does not count.
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
    """Raise ValueError for a decay that is none, or a hidden layer that cannot be or that a predictor does not have."""
    check_decay(ema_decay=ema_decay)
    if not 1 <= hidden_dim <= 2**16:
        raise ValueError(f"hidden_dim: {hidden_dim} is not allowed; give a width from 1 to {2**16}")
    if predictor == "linear" and hidden_dim != default_hidden:
        raise ValueError(
            f"hidden_dim: {hidden_dim} is not allowed; predictor linear has no hidden layer, so leave it out"
        )


def check_decay(*, ema_decay: float | None) -> None:
    """Raise ValueError for a decay that is none."""
    if ema_decay is not None and not 0 <= ema_decay <= 1:
        raise ValueError(
            f"ema_decay: {ema_decay} is not allowed; give a decay from 0 to 1, or null for no target network"
        )


def second_moment(rows_MP: Tensor) -> dict[str, Tensor]:
    """Sums over rows: "outer" of f f^T [P, P], not centred, and "rows", their number."""
    rows_MP = at_least_float32(rows_MP).detach()
    with torch.autocast(rows_MP.device.type, enabled=False):
        return {"outer": rows_MP.T @ rows_MP, "rows": rows_MP.new_full((), len(rows_MP))}
