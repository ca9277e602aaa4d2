"""DirectPred: BYOL with a linear predictor that is computed from correlations, not trained.

P projection width.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor

from coupled.objectives import Inputs, Kept, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, mean_over_counted
from coupled.objectives._correlations import EPS, check_moving_average, predictor_of, regression_of
from coupled.objectives._prediction import (
    check_decay,
    predicting,
    prediction_losses,
    second_moments,
    target_output,
)
from coupled.objectives._ranges import not_negative, within_one

Rule = Literal["paper", "code", "regression"]
ADDED = ("shift", "floor", "ridge", "asymmetric")  # options that are recorded only if they do not have their default


def check(
    *,
    rule: Rule = "paper",
    freq: int,
    rho: float,
    eps: float,
    ema_decay: float | None,
    shift: float = 0.0,
    floor: float = 0.0,
    ridge: float = 0.0,
    **_others: object,
) -> None:
    """Raise ValueError for an option that is out of range, or that the rule does not use."""
    check_decay(ema_decay=ema_decay)
    if freq < 1:
        raise ValueError(f"freq: {freq} is not allowed; give a number of steps from 1")
    check_moving_average(rho=rho)
    not_negative(eps=eps, floor=floor, ridge=ridge)
    within_one(shift=shift)
    unused = {"eps": (eps, EPS), "shift": (shift, 0), "floor": (floor, 0)} if rule == "regression" else {}
    for name, (value, usual) in (unused or {"ridge": (ridge, 0)}).items():
        if value != usual:
            raise ValueError(f"{name}: {value} is not allowed; rule {rule} does not use it; remove {name}")


def needs(*, rule: Rule = "paper", freq: int = 1, ema_decay: float | None = 0.996, **_options: object) -> Needs:
    """Declare the linear predictor, its inputs and targets, their correlations and the target network."""
    asked, square = predicting("linear", 0, ema_decay, trained=freq > 1), Kept(("unnormalised", "unnormalised"))
    if rule != "regression":
        return replace(asked, outputs=(*asked.outputs, "unnormalised"), kept={"correlation": square})
    read = dict.fromkeys((*asked.outputs, "unnormalised", target_output(ema_decay, "unnormalised")))
    return replace(asked, outputs=tuple(read), kept={"correlation": square, "cross_correlation": square})


def batch_sums(
    outputs: Mapping[str, Tensor],
    *,
    rule: Rule = "paper",
    ema_decay: float | None = 0.996,
    asymmetric: bool = False,
    **_options: object,
) -> dict[str, Tensor]:
    """Return the sum of f f^T and the number of rows for the predictor's inputs f, those of all views that predict.

    With the rule "regression" also the sum of t f^T, for the mean t of the targets of the other views.
    """
    targets = outputs[target_output(ema_decay, "unnormalised")] if rule == "regression" else None
    return second_moments(outputs["unnormalised"], targets, asymmetric=asymmetric)


def after_step(
    tensors: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    step: int,
    *,
    rule: Rule,
    freq: int,
    rho: float,
    eps: float,
    shift: float = 0.0,
    floor: float = 0.0,
    ridge: float = 0.0,
    **_options: object,
) -> dict[str, Tensor]:
    """Update F <- rho F + (1 - rho) E[f f^T], at step 1 F <- E[f f^T]; set W_p after the steps 1, 1 + freq, ...

    With the rule "regression" also E[t f^T] in the same way.
    """
    sums = {"correlation": "outer"} if rule != "regression" else {"correlation": "outer", "cross_correlation": "cross"}
    changed = {}
    for name, sum_name in sums.items():
        moment_PP, kept = batch[sum_name] / batch["rows"], f"kept.{name}"
        changed[kept] = moment_PP if step == 1 else tensors[kept].lerp(moment_PP, 1 - rho)
    if (step - 1) % freq == 0:
        changed["predictor.weight"] = (
            regression_of(changed["kept.correlation"], changed["kept.cross_correlation"], ridge)
            if rule == "regression"
            else predictor_of(changed["kept.correlation"], rule, eps, shift, floor)
        )
    return changed


def per_anchor(
    inputs: Inputs, *, ema_decay: float | None = 0.996, asymmetric: bool = False, **_options: object
) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    return prediction_losses(inputs, ema_decay, asymmetric=asymmetric)


def directpred(
    inputs: Inputs,
    *,
    rule: Rule = "paper",
    freq: int = 1,
    rho: float = 0.3,
    eps: float = EPS,
    shift: float = 0.0,
    floor: float = 0.0,
    ridge: float = 0.0,
    ema_decay: float | None = 0.996,
    asymmetric: bool = False,
) -> Loss:
    """Return the loss of BYOL with a linear predictor that is computed instead of trained.

        -cos(W_p f_v, t_w), mean over all views v and over the other views w of the same image

    The minimum is -1. Targets t are those of `byol`. The predictor W_p (no bias) is set from F every `freq` steps (see
    `after_step`). F is the correlation of the predictor's inputs f, not centred, as a moving average over steps with
    decay `rho`. With the eigenvalues s_j and eigenvectors u_j of F, W_p = sum_j p_j u_j u_j^T and

        p_j = max(sqrt(max(s_j - shift, 0)) + eps max s, floor)          (rule "paper")
        p_j = max(sqrt(max(s_j / max s - shift, 0)) + eps, floor)        (rule "code")

    The theory's invariant is s_j = p_j^2 + c_j; `shift` is c_j, 0 for DirectPred. With the rule "regression", W_p =
    E[t f^T] (F + ridge I)^-1, the optimal predictor of the targets t before normalisation. With `freq` 1 the predictor
    gets no gradient and no weight decay; with a larger `freq` it is trained between these steps. `ema_decay: null`
    means no target network. W_p starts as in `byol`.

    Args:
        inputs: reads the "prediction" and the "target_projection" of this process [V, B, P].
        rule: "paper" or "code", the rule for W_p of the paper or of the authors' code; "regression", the linear
            regression of the targets on f, with E[t f^T] as a moving average like F.
        freq: W_p is set every `freq` steps; at least 1.
        rho: decay of the moving average F, in [0, 1); 0 for the correlation of the last batch.
        eps: offset of the eigenvalues of W_p, at least 0.
        shift: is subtracted from the eigenvalues of F, with the rule "code" relative to the largest; between -1 and 1.
        floor: least eigenvalue of W_p, at least 0. The authors' code has 1e-4, and 0.01 with a shift.
        ridge: is added to the eigenvalues of F in the regression, at least 0.
        ema_decay: decay of the target network per step, or None for no target network.
        asymmetric: whether only the first view predicts the others, and f are its rows; otherwise each view does.

    Returns:
        The mean over the counted anchors of this process (scalar, no unit), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if `freq` is below 1, `rho` is not in [0, 1), `eps`, `floor` or `ridge` is not from 0 to 1e6,
            `shift` is not between -1 and 1, `ema_decay` is neither None nor from 0 to 1, or an option is set that
            the rule does not use; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three unit vectors
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> outputs = {"prediction": z, "target_projection": z}
        >>> round(float(directpred(Inputs(outputs, {}, labels, labels)).mean), 4)
        -1.0

    Source: Tian, Chen & Ganguli 2021, arXiv 2102.06810, section 5. F starts as in the authors' code.
    """
    return mean_over_counted(per_anchor(inputs, ema_decay=ema_decay, asymmetric=asymmetric))
