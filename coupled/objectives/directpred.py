"""DirectPred: BYOL with a linear predictor that is computed from the correlation of its inputs, not trained.

M rows of the global batch, P projection width.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from coupled.objectives import Inputs, Kept, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, mean_over_counted
from coupled.objectives._prediction import check_decay, predicting, prediction_losses, second_moment
from coupled.objectives._ranges import not_negative

Rule = Literal["paper", "code"]


def check(*, freq: int, rho: float, eps: float, ema_decay: float | None, **_others: object) -> None:
    """Raise ValueError for an option that is out of range."""
    check_decay(ema_decay=ema_decay)
    if freq < 1:
        raise ValueError(f"freq: {freq} is not allowed; give a number of steps from 1")
    if not 0 <= rho < 1:
        raise ValueError(f"rho: {rho} is not allowed; give a decay from 0 to below 1")
    not_negative(eps=eps)


def needs(
    *, rule: Rule = "paper", freq: int = 1, rho: float = 0.3, eps: float = 0.1, ema_decay: float | None = 0.996
) -> Needs:
    """Declare the linear predictor, its inputs, their correlation and the target network."""
    asked = predicting("linear", 0, ema_decay, trained=freq > 1)
    square = Kept(("unnormalised", "unnormalised"))
    return replace(asked, outputs=(*asked.outputs, "unnormalised"), kept={"correlation": square})


def batch_sums(outputs: Mapping[str, Tensor], **_options: object) -> dict[str, Tensor]:
    """Return the sum of f f^T and the number of rows for the predictor's inputs f of all views."""
    return second_moment(outputs["unnormalised"].flatten(0, 1))


def after_step(
    tensors: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    step: int,
    *,
    rule: Rule,
    freq: int,
    rho: float,
    eps: float,
    ema_decay: float | None,
) -> dict[str, Tensor]:
    """Update F <- rho F + (1 - rho) E[f f^T], at step 1 F <- E[f f^T]; set W_p after the steps 1, 1 + freq, ..."""
    moment_PP = batch["outer"] / batch["rows"]
    correlation_PP = moment_PP if step == 1 else tensors["kept.correlation"].lerp(moment_PP, 1 - rho)
    changed = {"kept.correlation": correlation_PP}
    if (step - 1) % freq == 0:
        changed["predictor.weight"] = predictor_of(correlation_PP, rule, eps)
    return changed


def predictor_of(correlation_PP: Tensor, rule: Rule, eps: float) -> Tensor:
    """Return W_p = U diag(p) U^T for F = U diag(s) U^T [P, P].

    p_j is sqrt(s_j) + eps max s with the rule "paper", and sqrt(s_j / max s) + eps with the rule "code". Computed in
    float64, because the square root amplifies rounding errors of eigenvalues near 0. NaN if F is not finite, because an
    eigenvalue solver would raise or wait for the device. Source: arXiv 2102.06810, section 5, and its authors' code.
    """
    finite = correlation_PP.isfinite().all()
    eigenvalues_P, vectors_PP = torch.linalg.eigh(torch.where(finite, correlation_PP.double(), 0))
    s_P = eigenvalues_P.clamp(min=0)
    if rule == "paper":
        p_P = s_P.sqrt() + eps * s_P.max()
    else:
        p_P = (s_P / s_P.max().clamp(min=torch.finfo(s_P.dtype).tiny)).sqrt() + eps
    weight_PP = ((vectors_PP * p_P) @ vectors_PP.T).to(correlation_PP.dtype)
    return torch.where(finite, weight_PP, torch.nan)


def per_anchor(inputs: Inputs, *, ema_decay: float | None = 0.996, **_options: object) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    return prediction_losses(inputs, ema_decay)


def directpred(
    inputs: Inputs,
    *,
    rule: Rule = "paper",
    freq: int = 1,
    rho: float = 0.3,
    eps: float = 0.1,
    ema_decay: float | None = 0.996,
) -> Loss:
    """Return the loss of BYOL with a linear predictor that is computed instead of trained.

        -cos(W_p f_v, t_w), mean over all views v and over the other views w of the same image

    The minimum is -1. Targets t are those of `byol`. The predictor W_p (no bias) is set from F every `freq` steps (see
    `after_step`). F is the correlation of the predictor's inputs f, not centred, as a moving average over steps with
    decay `rho`. `rule` and `eps` define how W_p follows from F (see `predictor_of`). With `freq` 1 the predictor gets
    no gradient and no weight decay; with a larger `freq` it is trained between these steps. `ema_decay: null` means no
    target network. W_p starts as in `byol`.

    Args:
        inputs: reads the "prediction" and the "target_projection" of this process [V, B, P].
        rule: "paper" or "code", the rule for W_p of the paper or of the authors' code.
        freq: W_p is set every `freq` steps; at least 1.
        rho: decay of the moving average F, in [0, 1).
        eps: offset of the eigenvalues of W_p, at least 0 (see `predictor_of`).
        ema_decay: decay of the target network per step, or None for no target network.

    Returns:
        The mean over the counted anchors of this process (scalar, no unit), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if `freq` is below 1, `rho` is not in [0, 1), `eps` is not from 0 to 1e6, or `ema_decay` is neither
            None nor from 0 to 1; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three unit vectors
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> outputs = {"prediction": z, "target_projection": z}
        >>> round(float(directpred(Inputs(outputs, {}, labels, labels)).mean), 4)
        -1.0

    Source: Tian, Chen & Ganguli 2021, arXiv 2102.06810, section 5. F starts as in the authors' code.
    """
    return mean_over_counted(per_anchor(inputs, ema_decay=ema_decay))
