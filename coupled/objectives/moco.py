"""MoCo: identify the target network's projection of another view among those of a queue, or of the batch.

V views, B own images, A = V*B own anchors, G images of the global batch, M = V*G rows, K rows of the queue, P width.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from coupled.objectives import Inputs, Kept, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32, mean_over_counted
from coupled.objectives._prediction import check_decay, predicting
from coupled.objectives._queue import check_queue, enqueued, key_among_queue, mean_over_other_views
from coupled.objectives._ranges import above_zero

Version = Literal["v2", "v3"]
QUEUE = 65536  # default number of rows
HIDDEN = 4096  # width of the predictor's hidden layer


def check(*, temperature: float, version: Version, queue_size: int, ema_decay: float) -> None:
    """Raise ValueError for an option that is out of range or that the version does not have."""
    above_zero(temperature=temperature)
    check_queue(queue_size=queue_size)
    if version == "v3" and queue_size != QUEUE:
        raise ValueError(f"queue_size: {queue_size} is not allowed; version v3 has no queue; remove queue_size")
    check_decay(ema_decay=ema_decay)


def needs(*, version: Version = "v2", queue_size: int = QUEUE, ema_decay: float = 0.999, **_options: object) -> Needs:
    """Declare the target network, and a queue of its projections ("v2") or a predictor ("v3")."""
    keys = ("target_projection",)
    if version == "v3":
        return replace(predicting("mlp", HIDDEN, ema_decay), gathered=keys)
    queue = Kept((queue_size, "projection"), start="unit_rows", snapshot=False)
    return Needs(("projection", *keys), gathered=keys, target_decay=ema_decay, kept={"queue": queue})


def after_step(
    tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor], step: int, *, version: Version, **_others: object
) -> dict[str, Tensor]:
    """Replace the oldest rows of the queue by the target network's projections of the global batch."""
    return {} if version == "v3" else enqueued(tensors, "queue", batch["target_projection"], step)


def per_anchor(inputs: Inputs, *, temperature: float, version: Version = "v2", **_options: object) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    if version == "v2":
        return key_among_queue(inputs, temperature)
    query_VBP = functional.normalize(at_least_float32(inputs.outputs["prediction"]), dim=-1) / temperature
    key_VBP = at_least_float32(inputs.outputs["target_projection"]).detach()
    positive_VWB = (query_VBP[:, None] * key_VBP).sum(-1)
    with torch.autocast(query_VBP.device.type, enabled=False):
        all_VGP = at_least_float32(inputs.gathered["target_projection"]).detach()
        scores_VWBG = query_VBP[:, None] @ all_VGP.mT
        losses_VWB = scores_VWBG.logsumexp(-1) - positive_VWB
    return mean_over_other_views(losses_VWB, counts=len(inputs.labels_G) > 1)


def moco(
    inputs: Inputs,
    *,
    temperature: float,
    version: Version = "v2",
    queue_size: int = QUEUE,
    ema_decay: float = 0.999,
) -> Loss:
    """Return the MoCo loss: identify the target network's projection of another view of the same image.

        -q_v.k_w/tau + log(exp(q_v.k_w/tau) + sum over n of exp(q_v.n/tau)), mean over views v and the others w

    k is the target network's projection at unit norm ("key"), without gradient. With `version: v2`, q is the projection
    and n are the rows of a queue with the keys of the last batches, all views of each; the queue starts with random
    directions. With `version: v3`, q is the output of a predictor at unit norm and n are the keys of the other images
    of the global batch in view w; there is no queue. The target network is that of `byol`; see there for its decay. In
    distributed training the original gives each GPU's batch norm other statistics for keys than for queries
    ("shuffling BN"); here batch norm sees the global batch, so there is nothing to shuffle.

    Args:
        inputs: reads the "projection" ("v2") or "prediction" ("v3") and the "target_projection" of this process
            [V, B, P], the "target_projection" of the global batch [V, G, P], and the kept "queue" [K, P] ("v2").
        temperature: temperature tau, above 0.
        version: "v2", with a queue, or "v3", with a predictor and the global batch.
        queue_size: number of rows K of the queue; not allowed with "v3", which has none.
        ema_decay: decay of the target network per step.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output or a kept tensor that `needs` names.
        ValueError: if the temperature is not from 1e-6 to 1e6, `queue_size` not from 1 to 2^24 or not the default with
            "v3", or `ema_decay` not from 0 to 1; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> outputs = {"projection": z, "target_projection": z}
        >>> inputs = Inputs(outputs, outputs, labels, labels, kept={"queue": torch.eye(3)})
        >>> round(float(moco(inputs, temperature=1.0).mean), 4)
        1.0064

    Source: He et al. 2020, arXiv 1911.05722, eq. 1; v2: Chen et al. 2020, arXiv 2003.04297; v3: Chen, Xie & He 2021,
    arXiv 2104.02057, algorithm 1, whose loss of two views is 4 tau times this one. The first two take the views of an
    image as query and key once, not both ways.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature, version=version))
