"""Objectives with prototypes: predict the soft assignment of one view to prototypes from the other views.

V views, L local views, B images of this process, N rows, K prototypes.
"""

import torch
from torch import Tensor

from coupled.objectives import LOCAL, Inputs
from coupled.objectives._anchors import AnchorLosses, at_least_float32

SCORES = "scores"  # output of the prototypes
LOCAL_SCORES = f"{LOCAL}{SCORES}"


def scores_of(multi_crop: bool) -> tuple[str, ...]:
    """Return the outputs that predict: the scores of the views, with `multi_crop` also those of the local views."""
    return (SCORES, LOCAL_SCORES) if multi_crop else (SCORES,)


def check_steps(**options: int) -> None:
    """Raise ValueError for the first number of steps that is below 0."""
    for name, value in options.items():
        if value < 0:
            raise ValueError(f"{name}: {value} is not allowed; give a number of steps from 0")


def cross_entropies(
    assigned_VBK: Tensor, inputs: Inputs, temperature: float, multi_crop: bool, *, counts: bool = True
) -> AnchorLosses:
    """Return -sum over k of q_wk log p_vk, mean over the other views v: one loss for each view w of an image.

    q_w is the assignment of view w, and p_v the softmax over the prototypes of the scores of view v, divided by the
    temperature. v runs over the views but w, and with `multi_crop` over all local views. Without any v, or if not
    `counts`, no anchor counts.
    """
    log_VBK = _log_softmax(inputs.outputs[SCORES], temperature)
    total_BK, predicting = log_VBK.sum(0), len(log_VBK) - 1
    if multi_crop:
        log_LBK = _log_softmax(inputs.outputs[LOCAL_SCORES], temperature)
        total_BK, predicting = total_BK + log_LBK.sum(0), predicting + len(log_LBK)
    losses_A = (assigned_VBK * (log_VBK - total_BK)).sum(-1).div(max(predicting, 1)).flatten()
    return AnchorLosses(losses_A, torch.full_like(losses_A, predicting > 0 and counts, dtype=torch.bool))


def _log_softmax(scores_VBK: Tensor, temperature: float) -> Tensor:
    return (at_least_float32(scores_VBK) / temperature).log_softmax(-1)


def sinkhorn(scores_VNK: Tensor, counted_N: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Return the soft assignments of the rows of each view to prototypes, [V, N, K]; 0 for rows that do not count.

    Q = diag(u) exp(scores / epsilon) diag(v): every iteration first gives each prototype the same total over the
    counted rows, then each row the sum 1. Computed with logarithms, so nothing overflows. Source: Cuturi 2013, arXiv
    1306.0895, algorithm 1; as in arXiv 2006.09882, eq. 5.
    """
    logits_VNK = scores_VNK / epsilon
    of_row_VN1 = logits_VNK.new_zeros(()).masked_fill(~counted_N, torch.inf)[None, :, None]
    of_prototype_V1K = torch.zeros_like(logits_VNK[:, :1])
    for _ in range(iterations):
        of_prototype_V1K = (logits_VNK - of_row_VN1).logsumexp(1, keepdim=True)
        of_row_VN1 = (logits_VNK - of_prototype_V1K).logsumexp(2, keepdim=True)
        of_row_VN1 = of_row_VN1.masked_fill(~counted_N[:, None], torch.inf)
    return (logits_VNK - of_prototype_V1K - of_row_VN1).exp()
