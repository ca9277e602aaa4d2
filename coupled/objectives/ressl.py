"""ReSSL: the similarities of a view to the rows of a queue should equal those of another view in the target network.

V views, B own images, A = V*B own anchors, K rows of the queue, P width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from coupled.objectives import Inputs, Kept, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32, mean_over_counted
from coupled.objectives._prediction import check_decay
from coupled.objectives._queue import check_queue, enqueued, mean_over_other_views
from coupled.objectives._ranges import above_zero

PAPER_TEMPERATURE = 0.1


def check(*, temperature: float, target_temperature: float, queue_size: int, ema_decay: float) -> None:
    """Raise ValueError for an option that is out of range."""
    above_zero(temperature=temperature, target_temperature=target_temperature)
    check_queue(queue_size=queue_size)
    check_decay(ema_decay=ema_decay)


def needs(*, queue_size: int = 131072, ema_decay: float = 0.999, **_options: object) -> Needs:
    """Declare the target network and a queue of its projections."""
    queue = Kept((queue_size, "projection"), start="unit_rows", snapshot=False)
    outputs = ("projection", "target_projection")
    return Needs(outputs, gathered=outputs[1:], target_decay=ema_decay, kept={"queue": queue})


def after_step(
    tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor], step: int, **_options: object
) -> dict[str, Tensor]:
    """Replace the oldest rows of the queue by the target network's projections of the global batch."""
    return enqueued(tensors, "queue", batch["target_projection"], step)


def per_anchor(
    inputs: Inputs, *, temperature: float, target_temperature: float = 0.04, **_options: object
) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    own_VBP = at_least_float32(inputs.outputs["projection"])
    target_VBP = at_least_float32(inputs.outputs["target_projection"]).detach()
    queue_PK = inputs.kept["queue"].to(own_VBP.dtype).T
    with torch.autocast(own_VBP.device.type, enabled=False):
        log_VBK = (own_VBP / temperature @ queue_PK).log_softmax(-1)
        wanted_VBK = (target_VBP / target_temperature @ queue_PK).softmax(-1)
        losses_VWB = -torch.stack([(wanted_VBK * of_view_BK).sum(-1) for of_view_BK in log_VBK])
    return mean_over_other_views(losses_VWB, counts=True)


def ressl(
    inputs: Inputs,
    *,
    temperature: float,
    target_temperature: float = 0.04,
    queue_size: int = 131072,
    ema_decay: float = 0.999,
) -> Loss:
    """Return the ReSSL loss: the cross-entropy of two distributions over the rows of a queue.

        -sum over n of softmax(t_w.n/tau_t) log softmax(z_v.n/tau), mean over views v and the other views w

    z is the projection and t that of the target network, without gradient; n are the rows of a queue with the target
    network's projections of the last batches, all views of each. The queue starts with random directions. In the paper
    the target network sees a weakly augmented view only; here each view takes both parts. The target network is that of
    `byol`; see there for its decay.

    Args:
        inputs: reads the "projection" and the "target_projection" of this process [V, B, P], the "target_projection" of
            the global batch [V, G, P], and the kept "queue" [K, P].
        temperature: temperature tau, above 0; .1 in the paper. The default is the temperature of the run.
        target_temperature: temperature tau_t of the target network, above 0.
        queue_size: number of rows K of the queue.
        ema_decay: decay of the target network per step.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output or a kept tensor that `needs` names.
        ValueError: if a temperature is not from 1e-6 to 1e6, `queue_size` not from 1 to 2^24, or `ema_decay` not from 0
            to 1; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> outputs = {"projection": z, "target_projection": z}
        >>> inputs = Inputs(outputs, outputs, labels, labels, kept={"queue": torch.eye(3)})
        >>> round(float(ressl(inputs, temperature=1.0, target_temperature=1.0).mean), 4)
        0.9753

    Source: Zheng et al. 2021, arXiv 2107.09282, eq. 3 to 5.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature, target_temperature=target_temperature))
