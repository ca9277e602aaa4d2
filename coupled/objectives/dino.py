"""DINO: predict the target network's assignment of one view to prototypes from other views; the target is centred.

V views, B own images, A = V*B own anchors, K prototypes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from coupled.objectives import Head, Inputs, Kept, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32, mean_over_counted
from coupled.objectives._assignments import SCORES, check_steps, cross_entropies, scores_of
from coupled.objectives._prediction import check_decay
from coupled.objectives._ranges import above_zero, check_width, share

START = 0.04  # default of `warmup_temperature`
TARGET_SCORES = f"target_{SCORES}"
PAPER_TEMPERATURE = 0.1


def check(
    *,
    temperature: float,
    target_temperature: float,
    warmup_temperature: float,
    warmup_steps: int,
    num_prototypes: int,
    centre_decay: float,
    freeze_steps: int,
    ema_decay: float,
    **_others: object,
) -> None:
    """Raise ValueError for an option that is out of range, or that has no effect."""
    above_zero(temperature=temperature, target_temperature=target_temperature, warmup_temperature=warmup_temperature)
    check_width(num_prototypes=num_prototypes)
    share(centre_decay=centre_decay)
    check_steps(warmup_steps=warmup_steps, freeze_steps=freeze_steps)
    check_decay(ema_decay=ema_decay)
    if warmup_steps and warmup_temperature == target_temperature:
        raise ValueError(
            f"warmup_steps: {warmup_steps} is not allowed; warmup_temperature and target_temperature are both"
            f" {target_temperature}; change one of them or remove warmup_steps"
        )
    if not warmup_steps and warmup_temperature != START:
        raise ValueError(
            f"warmup_temperature: {warmup_temperature} is not allowed; there is no warm-up; set warmup_steps or remove"
            " it"
        )


def needs(
    *,
    num_prototypes: int = 65536,
    warmup_steps: int = 0,
    freeze_steps: int = 0,
    multi_crop: bool = False,
    ema_decay: float = 0.996,
    **_options: object,
) -> Needs:
    """Declare the prototypes, the target network with prototypes, the centre, and the steps of a warm-up."""
    head = Head("cosine_prototypes", "projection", SCORES, width=num_prototypes, frozen_steps=freeze_steps)
    kept = {"centre": Kept((num_prototypes,))}
    if warmup_steps:
        kept["warmup_steps"] = Kept((1,), snapshot=False)
    outputs = (*scores_of(multi_crop), TARGET_SCORES)
    return Needs(outputs, heads={"prototypes": head}, target_decay=ema_decay, target_heads=("prototypes",), kept=kept)


def batch_sums(outputs: Mapping[str, Tensor], **_options: object) -> dict[str, Tensor]:
    """Return the sum of the target network's scores over all views [K], and the number of views."""
    scores_VBK = at_least_float32(outputs[TARGET_SCORES]).detach()
    rows = scores_VBK.new_full((), scores_VBK[..., 0].numel())
    return {"target_scores": scores_VBK.sum((0, 1)), "rows": rows}


def after_step(
    tensors: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    step: int,
    *,
    centre_decay: float,
    warmup_steps: int,
    **_options: object,
) -> dict[str, Tensor]:
    """Update the centre, c <- m c + (1 - m) mean of the target's scores, and count the steps of the warm-up."""
    mean_K = batch["target_scores"] / batch["rows"]
    changed = {"kept.centre": tensors["kept.centre"].lerp(mean_K.to(tensors["kept.centre"].dtype), 1 - centre_decay)}
    if warmup_steps:
        changed["kept.warmup_steps"] = torch.full_like(tensors["kept.warmup_steps"], min(step, warmup_steps))
    return changed


def per_anchor(
    inputs: Inputs,
    *,
    temperature: float,
    target_temperature: float = 0.04,
    warmup_temperature: float = START,
    warmup_steps: int = 0,
    multi_crop: bool = False,
    **_options: object,
) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    target_VBK = at_least_float32(inputs.outputs[TARGET_SCORES]).detach()
    centred_VBK = target_VBK - inputs.kept["centre"].to(target_VBK.dtype)
    if warmup_steps:
        part = inputs.kept["warmup_steps"].to(target_VBK.dtype) / warmup_steps
        centred_VBK = centred_VBK / (warmup_temperature + part * (target_temperature - warmup_temperature))
    else:
        centred_VBK = centred_VBK / target_temperature
    return cross_entropies(centred_VBK.softmax(-1), inputs, temperature, multi_crop)


def dino(
    inputs: Inputs,
    *,
    temperature: float,
    target_temperature: float = 0.04,
    warmup_temperature: float = START,
    warmup_steps: int = 0,
    num_prototypes: int = 65536,
    centre_decay: float = 0.9,
    freeze_steps: int = 0,
    multi_crop: bool = False,
    ema_decay: float = 0.996,
) -> Loss:
    """Return the DINO loss: the cross-entropy of the target network's and the network's distribution over prototypes.

        -sum over k of softmax_k((t_w.d_k - c_k)/tau_t) log softmax_k(z_v.e_k/tau), mean over views w and others v

    z is the projection, e_k are the prototypes; t and d_k are those of the target network ("teacher"), without
    gradient. All have unit norm, so the last layer is weight-normalised with norm 1, as in the authors' code by
    default; the stored rows have any norm. With `multi_crop`, v also runs over the local views, which the target
    network does not see. The centre c is a moving average over steps of the mean of t_w.d over the global batch; it
    starts at 0. The target network is that of `byol`, with prototypes; see there for its decay.

    The temperature of the target network rises (or falls) from `warmup_temperature` to `target_temperature`, linearly
    in the first `warmup_steps` steps. In the authors' code it is constant within an epoch.

    Args:
        inputs: reads the "scores" z.e and the "target_scores" t.d of this process [V, B, K]; with `multi_crop` the
            "local_scores" [L, B, K]; the kept "centre" [K]; with a warm-up the kept "warmup_steps" [1], the number of
            steps done.
        temperature: temperature tau, above 0; .1 in the paper. The default is the temperature of the run.
        target_temperature: temperature tau_t of the target network, above 0; .07 after 30 epochs in the paper's runs.
        warmup_temperature: temperature of the target network in the first step, if there is a warm-up.
        warmup_steps: number of steps of the warm-up; 0 for no warm-up.
        num_prototypes: number of prototypes K.
        centre_decay: decay of the centre per step, from 0 to 1; with 1 there is no centring.
        freeze_steps: number of first steps in which the prototypes are not trained; in the authors' code the steps of
            one epoch.
        multi_crop: whether local views predict, too; the run must then have local views.
        ema_decay: decay of the target network per step.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output or a kept tensor that `needs` names.
        ValueError: if a temperature is not from 1e-6 to 1e6, `num_prototypes` not from 1 to 65536, a number of steps
            below 0, `centre_decay` or `ema_decay` not from 0 to 1, or a key of the warm-up has no effect; raised when
            the settings are loaded.

    Example:
        >>> import torch
        >>> scores = torch.eye(3).repeat(2, 1, 1)  # two equal views of three images, each at its own prototype
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> outputs = {"scores": scores, "target_scores": scores}
        >>> inputs = Inputs(outputs, {}, labels, labels, kept={"centre": torch.zeros(3)})
        >>> round(float(dino(inputs, temperature=1.0, num_prototypes=3).mean), 4)
        0.5514

    Source: Caron et al. 2021, arXiv 2104.14294, eq. 1 to 4 and algorithm 1, and its authors' code. Agrees with
    lightly's `DINOLoss` and with solo-learn's `DINOLoss`, which has no local views.
    """
    return mean_over_counted(
        per_anchor(
            inputs,
            temperature=temperature,
            target_temperature=target_temperature,
            warmup_temperature=warmup_temperature,
            warmup_steps=warmup_steps,
            multi_crop=multi_crop,
        )
    )
