"""SwAV: predict the cluster assignment ("code") of one view from the other views; codes are balanced over prototypes.

V views, B own images, A = V*B own anchors, G images of the global batch, K prototypes, Q rows of the queue, P width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from coupled.objectives import Head, Inputs, Kept, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32, mean_over_counted
from coupled.objectives._assignments import SCORES, check_steps, cross_entropies, scores_of, sinkhorn
from coupled.objectives._queue import check_queue, enqueued
from coupled.objectives._ranges import above_zero, check_width

PAPER_TEMPERATURE = 0.1


def check(
    *,
    temperature: float,
    num_prototypes: int,
    epsilon: float,
    sinkhorn_iterations: int,
    queue_size: int,
    queue_start: int,
    freeze_steps: int,
    **_others: object,
) -> None:
    """Raise ValueError for an option that is out of range, or that belongs to a queue that is not there."""
    above_zero(temperature=temperature, epsilon=epsilon)
    check_width(num_prototypes=num_prototypes)
    if sinkhorn_iterations < 1:
        raise ValueError(f"sinkhorn_iterations: {sinkhorn_iterations} is not allowed; give a number from 1")
    check_steps(freeze_steps=freeze_steps, queue_start=queue_start)
    if queue_size:
        check_queue(queue_size=queue_size)
    elif queue_start:
        raise ValueError(f"queue_start: {queue_start} is not allowed; there is no queue; set queue_size or remove it")


def needs(
    *, num_prototypes: int = 3000, queue_size: int = 0, freeze_steps: int = 0, multi_crop: bool = False, **_: object
) -> Needs:
    """Declare the prototypes, and with a queue its rows and a copy of the prototypes, which give their scores."""
    head = Head("prototypes", "projection", SCORES, width=num_prototypes, frozen_steps=freeze_steps)
    sizes = {"queue": queue_size, "prototypes": num_prototypes} if queue_size else {}
    queued = ("projection",) if queue_size else ()
    return Needs(
        (*scores_of(multi_crop), *queued),
        gathered=(SCORES, *queued),
        heads={"prototypes": head},
        kept={name: Kept((size, "projection"), snapshot=False) for name, size in sizes.items()},
    )


def after_step(
    tensors: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    step: int,
    *,
    queue_size: int,
    queue_start: int,
    **_options: object,
) -> dict[str, Tensor]:
    """Scale the prototypes to unit norm; replace the oldest rows of the queue by projections of the global batch."""
    changed = {"prototypes.weight": functional.normalize(tensors["prototypes.weight"], dim=1)}
    if queue_size:
        changed["kept.prototypes"] = changed["prototypes.weight"]
        if step > queue_start:
            changed |= enqueued(tensors, "queue", batch["projection"], step - queue_start)
    return changed


def codes(
    scores_VGK: Tensor, kept: Mapping[str, Tensor], epsilon: float, sinkhorn_iterations: int, queue_size: int
) -> Tensor:
    """Return the codes of all views of the global batch [V, G, K], without gradient; each sums to 1 over prototypes.

    Each view is balanced by itself, together with the rows of the queue once all of them have been filled.
    """
    scores_VNK = at_least_float32(scores_VGK).detach()
    views, images = scores_VNK.shape[:2]
    counted_N = torch.ones(images, dtype=torch.bool, device=scores_VNK.device)
    with torch.autocast(scores_VNK.device.type, enabled=False):
        if queue_size:
            queue_QP = kept["queue"].to(scores_VNK.dtype)
            of_queue_QK = queue_QP @ kept["prototypes"].to(scores_VNK.dtype).T
            scores_VNK = torch.cat([scores_VNK, of_queue_QK.expand(views, -1, -1)], 1)
            counted_N = torch.cat([counted_N, queue_QP.any(1).all().expand(queue_size)])
        return sinkhorn(scores_VNK, counted_N, epsilon, sinkhorn_iterations)[:, :images]


def per_anchor(
    inputs: Inputs,
    *,
    temperature: float,
    epsilon: float = 0.05,
    sinkhorn_iterations: int = 3,
    queue_size: int = 0,
    multi_crop: bool = False,
    **_options: object,
) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    codes_VGK = codes(inputs.gathered[SCORES], inputs.kept, epsilon, sinkhorn_iterations, queue_size)
    codes_VBK = codes_VGK[:, inputs.first : inputs.first + len(inputs.labels_B)]
    return cross_entropies(codes_VBK, inputs, temperature, multi_crop, counts=len(inputs.labels_G) > 1)


def swav(
    inputs: Inputs,
    *,
    temperature: float,
    num_prototypes: int = 3000,
    epsilon: float = 0.05,
    sinkhorn_iterations: int = 3,
    queue_size: int = 0,
    queue_start: int = 0,
    freeze_steps: int = 0,
    multi_crop: bool = False,
) -> Loss:
    """Return the SwAV loss: predict the code of one view from the scores of another view of the same image.

        -sum over k of q_wk log softmax_k(z_v.c_k/tau), mean over views w and the other views v

    z is the projection and c_k the prototypes, all at unit norm. The code q_w is an assignment of view w to the
    prototypes, without gradient: exp(z_w.c_k/epsilon), scaled by Sinkhorn's iterations so that over the global batch
    every prototype has the same total and every image the sum 1. With `multi_crop`, v also runs over the local views,
    which have no codes. After every step the prototypes are scaled to unit norm.

    A queue has the projections of the last batches, all views of each; the codes are then balanced over the batch and
    the queue. As in the authors' code, it is used once it is full, and its rows are scored with the prototypes of the
    present step. The authors keep a queue for each view. Their published runs train without one if the batch is large.

    Args:
        inputs: reads the "scores" z.c of this process [V, B, K] and of the global batch [V, G, K]; with `multi_crop`
            the "local_scores" [L, B, K]; with a queue the "projection" of the global batch [V, G, P] and the kept
            "queue" [Q, P] and "prototypes" [K, P].
        temperature: temperature tau, above 0; .1 in the paper. The default is the temperature of the run.
        num_prototypes: number of prototypes K.
        epsilon: strength of the entropy of the codes, above 0; with a larger one they are softer.
        sinkhorn_iterations: number of iterations, at least 1.
        queue_size: number of rows Q of the queue; 0 for no queue.
        queue_start: number of steps after which rows enter the queue; in the authors' code the steps of 15 epochs.
        freeze_steps: number of first steps in which the prototypes are not trained; 313 in the authors' code.
        multi_crop: whether local views predict the codes, too; the run must then have local views.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out. In a global batch of one image no anchor counts.

    Raises:
        KeyError: if `inputs` lacks an output or a kept tensor that `needs` names.
        ValueError: if `temperature` or `epsilon` is not from 1e-6 to 1e6, `num_prototypes` not from 1 to 65536,
            `sinkhorn_iterations` below 1, `queue_size` not from 0 to 2^24, `queue_start` below 0 or given without a
            queue, or `freeze_steps` below 0; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> scores = torch.eye(3).repeat(2, 1, 1)  # two equal views of three images, each at its own prototype
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"scores": scores}, {"scores": scores}, labels, labels)
        >>> round(float(swav(inputs, temperature=1.0, num_prototypes=3).mean), 4)
        0.5514

    Source: Caron et al. 2020, arXiv 2006.09882, eq. 2 to 6, and its authors' code. Agrees with lightly's `SwaVLoss` and
    with solo-learn's `swav_loss_func`, which has no local views.
    """
    return mean_over_counted(
        per_anchor(
            inputs,
            temperature=temperature,
            epsilon=epsilon,
            sinkhorn_iterations=sinkhorn_iterations,
            queue_size=queue_size,
            multi_crop=multi_crop,
        )
    )
