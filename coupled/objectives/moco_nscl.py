"""MoCo with NSCL's negatives: the rows of the queue that are of other classes.

V views, B own images, G images of the global batch, K rows of the queue, P width.
"""

from coupled.objectives import Inputs, Loss
from coupled.objectives._anchors import AnchorLosses, mean_over_counted
from coupled.objectives._queue import (
    check_labelled_queue,
    enqueued_with_labels,
    key_among_queue,
    labelled_queue,
    same_class_in_queue,
)

check, needs, after_step = check_labelled_queue, labelled_queue, enqueued_with_labels


def per_anchor(inputs: Inputs, *, temperature: float, **_options: object) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    return key_among_queue(inputs, temperature, left_out_AK=same_class_in_queue(inputs))


def moco_nscl(inputs: Inputs, *, temperature: float, queue_size: int = 65536, ema_decay: float = 0.999) -> Loss:
    """Return the MoCo loss without negatives of the anchor's class: MoCo trained by NSCL.

        -q_v.k_w/tau + log(exp(q_v.k_w/tau) + sum over n with y_n != y of exp(q_v.n/tau)), mean over v and the other w

    q_v is the projection of view v, k_w the target network's projection of view w of the same image ("key"), without
    gradient. n are the rows of a queue with the keys of the last batches, all views of each, and y_n their labels; y is
    the label of the image. The queue starts with random directions of no class, which are negatives of every anchor.
    An anchor for which all rows are of its class has no negatives and is left out. If all labels differ, the loss is
    that of `moco` with `version: v2`, which has the positive in the denominator, too. The target network is that of
    `byol`; see there for its decay.

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
        >>> round(float(moco_nscl(Inputs(outputs, outputs, labels, labels, kept=kept), temperature=1.0).mean), 4)
        0.3927

    Source: arXiv 2506.04411, L_NSCL for models trained with the queue of He et al. 2020, arXiv 1911.05722, eq. 1. The
    authors' code for this combination is not known to us.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature))
