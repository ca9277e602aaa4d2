"""SupCon with a memory: its rows are the target network's projections of the batch and of a queue of past batches.

V views, B own images, A = V*B own anchors, G images of the global batch, M = V*G rows of the batch, K rows of the
queue, P width.
"""

import torch

from coupled.objectives import Inputs, Loss
from coupled.objectives._anchors import (
    AnchorLosses,
    at_least_float32,
    itself,
    log_sum_exp,
    mean_over,
    mean_over_counted,
    same_class,
)
from coupled.objectives._blocks import in_blocks
from coupled.objectives._queue import (
    check_labelled_queue,
    enqueued_with_labels,
    labelled_queue,
    same_class_in_queue,
)

check, needs, after_step = check_labelled_queue, labelled_queue, enqueued_with_labels


@in_blocks
def per_anchor(inputs: Inputs, *, temperature: float) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    query_AP = at_least_float32(inputs.outputs["projection"]).flatten(0, 1) / temperature
    keys_MP = at_least_float32(inputs.gathered["target_projection"]).detach().flatten(0, 1)
    others_AM, in_queue_AK = ~itself(inputs), same_class_in_queue(inputs)
    with torch.autocast(query_AP.device.type, enabled=False):  # the batch and the queue side by side
        scores_AR = query_AP @ torch.cat([keys_MP, inputs.kept["queue"].to(keys_MP.dtype)]).T
    others_AR = torch.cat([others_AM, torch.ones_like(in_queue_AK)], 1)
    positives_AR = torch.cat([same_class(inputs) & others_AM, in_queue_AK], 1)
    return AnchorLosses(log_sum_exp(scores_AR, others_AR) - mean_over(scores_AR, positives_AR), positives_AR.any(1))


def moco_supcon(inputs: Inputs, *, temperature: float, queue_size: int = 8192, ema_decay: float = 0.999) -> Loss:
    """Return the SupCon loss with a memory: positives and negatives also from a queue of past projections.

        -mean_{p in P} q.p/tau + log sum_{a in A} exp(q.a/tau), mean over anchors

    q is the projection of a view. A are the target network's projections, without gradient, of all other views of the
    global batch and the rows of a queue with those of the last batches, all views of each. P are those in A of the
    anchor's class. The queue starts with random directions of no class, which are negatives of every anchor. The loss
    is `supcon` with `variant: out`, if the target network equals the network, its gradient is stopped and the queue is
    empty. The target network is that of `byol`; see there for its decay.

    Args:
        inputs: reads the "projection" and the "target_projection" of this process [V, B, P], the "target_projection" of
            the global batch [V, G, P], the labels, and the kept "queue" [K, P] and "queue_labels" [K].
        temperature: temperature tau, above 0.
        queue_size: number of rows K of the queue.
        ema_decay: decay of the target network per step.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output or a kept tensor that `needs` names.
        ValueError: if the temperature is not from 1e-6 to 1e6, `queue_size` not from 1 to 2^24, or `ema_decay` not from
            0 to 1; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.tensor([0, 0, 1])
        >>> outputs, kept = {"projection": z, "target_projection": z}, {"queue": torch.eye(3), "queue_labels": labels}
        >>> round(float(moco_supcon(Inputs(outputs, outputs, labels, labels, kept=kept), temperature=1.0).mean), 4)
        1.8368

    Source: arXiv 2004.11362, eq. 2, with the memory of He et al. 2020, arXiv 1911.05722. The paper states a memory of
    8 192 projections and no formula; the queue of a target network is MoCo's.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature))
