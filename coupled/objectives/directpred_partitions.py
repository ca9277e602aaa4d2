"""DirectPred with a predictor that depends on its input: a matrix for each side of several random partitions.

V views, B own images, G images of the global batch, K partitions, P projection width.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from coupled.objectives import Inputs, Kept, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32, mean_over_counted
from coupled.objectives._correlations import EPS, EigenvalueRule, check_moving_average, predictor_of
from coupled.objectives._prediction import check_decay, prediction_losses, target_output
from coupled.objectives._ranges import not_negative

MOST = 1024  # partitions


def check(*, partitions: int, rho: float, eps: float, ema_decay: float | None, **_others: object) -> None:
    """Raise ValueError for an option that is out of range."""
    if not 1 <= partitions <= MOST:
        raise ValueError(f"partitions: {partitions} is not allowed; give a number from 1 to {MOST}")
    check_decay(ema_decay=ema_decay)
    check_moving_average(rho=rho)
    not_negative(eps=eps)


def needs(*, partitions: int = 6, ema_decay: float | None = 0.996, **_options: object) -> Needs:
    """Declare the predictor's inputs, the target network, the directions, and a matrix for each side of each."""
    sides = Kept((2, partitions, "unnormalised", "unnormalised"))
    return Needs(
        ("unnormalised", target_output(ema_decay)),
        gathered=("unnormalised",),
        target_decay=ema_decay,
        kept={
            "directions": Kept((partitions, "unnormalised"), start="unit_rows"),
            "correlations": sides,
            "predictors": sides,
        },
    )


def after_step(
    tensors: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    step: int,
    *,
    rule: EigenvalueRule,
    rho: float,
    eps: float,
    **_options: object,
) -> dict[str, Tensor]:
    """Update the correlation of each side with its rows, F <- rho F + (1 - rho) E[f f^T], at first F <- E[f f^T].

    Then set the matrices of all sides. A side without rows in the batch keeps its matrices.
    """
    f_VGP = at_least_float32(batch["unnormalised"])
    own_VG2K = side_of(f_VGP, f_VGP, tensors["kept.directions"]).to(f_VGP.dtype)
    rows_MP, own_M2K = f_VGP.flatten(0, 1), own_VG2K.flatten(0, 1)
    old_2KPP = tensors["kept.correlations"]
    outer = [(rows_MP * of_side_M[:, None]).T @ rows_MP for of_side_M in own_M2K.flatten(1).T]
    counts_2K11 = own_M2K.sum(0)[..., None, None]
    moments_2KPP = torch.stack(outer).view_as(old_2KPP) / counts_2K11.clamp(min=1)
    updated_2KPP = torch.where(is_set(old_2KPP), old_2KPP.lerp(moments_2KPP, 1 - rho), moments_2KPP)
    correlations_2KPP = torch.where(counts_2K11 > 0, updated_2KPP, old_2KPP)
    predictors_2KPP = torch.where(is_set(correlations_2KPP), predictor_of(correlations_2KPP, rule, eps), 0)
    return {"kept.correlations": correlations_2KPP, "kept.predictors": predictors_2KPP}


def side_of(rows_VBP: Tensor, all_VGP: Tensor, directions_KP: Tensor) -> Tensor:
    """Return whether a row is on the lower or on the upper side of each partition: bool [V, B, 2, K].

    The upper side is w_k . f of at least the mean of w_k . f over the rows of the view in the global batch.
    """
    directions_KP = directions_KP.to(rows_VBP.dtype)
    with torch.autocast(rows_VBP.device.type, enabled=False):
        upper_VBK = rows_VBP @ directions_KP.T >= (all_VGP.mean(1, keepdim=True) @ directions_KP.T)
    return torch.stack((~upper_VBK, upper_VBK), 2)


def is_set(matrices_2KPP: Tensor) -> Tensor:
    """Return which of the matrices are not 0 as at the start: bool [2, K, 1, 1]. Those that are set have a trace."""
    return (matrices_2KPP.diagonal(dim1=-2, dim2=-1).sum(-1) != 0)[..., None, None]


def per_anchor(inputs: Inputs, *, ema_decay: float | None = 0.996, **_options: object) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    f_VBP = at_least_float32(inputs.outputs["unnormalised"])
    all_VGP = at_least_float32(inputs.gathered["unnormalised"]).detach()
    kept_2KPP = inputs.kept["predictors"].to(f_VBP.dtype)
    identity_PP = torch.eye(f_VBP.shape[-1], dtype=f_VBP.dtype, device=f_VBP.device)
    predictors_2KPP = torch.where(is_set(kept_2KPP), kept_2KPP, identity_PP)
    own_VB2K = side_of(f_VBP.detach(), all_VGP, inputs.kept["directions"])
    with torch.autocast(f_VBP.device.type, enabled=False):
        every_VB2KP = torch.einsum("vbp,skqp->vbskq", f_VBP, predictors_2KPP)
    prediction_VBP = (every_VB2KP * own_VB2K[..., None]).sum((2, 3)) / len(inputs.kept["directions"])
    outputs = {**inputs.outputs, "prediction": prediction_VBP}
    return prediction_losses(replace(inputs, outputs=outputs), ema_decay)


def directpred_partitions(
    inputs: Inputs,
    *,
    partitions: int = 6,
    rule: EigenvalueRule = "paper",
    rho: float = 0.3,
    eps: float = EPS,
    ema_decay: float | None = 0.996,
) -> Loss:
    """Return the loss of `directpred` with a predictor that depends on its input, from several random partitions.

        -cos(W(f_v) f_v, t_w), W(f) = (1/K) sum_k W_k,side(f), mean over views v and the other views w

    The directions w_k, drawn by the seed of the run, cut the predictor's inputs f in two: f is on the upper side if
    w_k . f is at least the mean of w_k . f over the view's rows in the global batch. Each side of each partition has a
    correlation F of its own rows, a moving average, and the matrix W_k,side that follows from it as in `directpred`.
    Both are set after every step. A matrix that has not been set yet is the identity. Targets t are those of `byol`.

    Args:
        inputs: reads "unnormalised" of this process [V, B, P] and of the global batch [V, G, P], the
            "target_projection" of this process [V, B, P], and the kept "directions" [K, P] and "predictors"
            [2, K, P, P].
        partitions: number of partitions K, 1 to 1024.
        rule: "paper" or "code", the rule for the eigenvalues of the matrices as in `directpred`.
        rho: decay of the moving averages F, in [0, 1).
        eps: offset of the eigenvalues, at least 0.
        ema_decay: decay of the target network per step, or None for no target network.

    Returns:
        The mean over the counted anchors of this process (scalar, no unit), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output or a kept tensor that `needs` names.
        ValueError: if `partitions` is not from 1 to 1024, `rho` is not in [0, 1), `eps` is not from 0 to 1e6, or
            `ema_decay` is neither None nor from 0 to 1; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> f = torch.eye(3).repeat(2, 1, 1)  # two equal views of three unit vectors
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> outputs = {"unnormalised": f, "target_projection": f}
        >>> kept = {"directions": torch.eye(3)[:1], "predictors": torch.zeros(2, 1, 3, 3)}
        >>> round(float(directpred_partitions(Inputs(outputs, outputs, labels, labels, kept=kept)).mean), 4)
        -1.0

    Source: Tian, Chen & Ganguli 2021, arXiv 2102.06810, and the option "partition" of its authors' code, which sets the
    matrices before the loss of the same step.
    """
    return mean_over_counted(per_anchor(inputs, ema_decay=ema_decay))
