"""NNCLR: the positive of a view is the nearest neighbour of another view in a queue of past projections.

V views, B own images, A = V*B own anchors, G images of the global batch, K rows of the queue, P width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from coupled.objectives import Head, Inputs, Kept, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32, mean_over_counted
from coupled.objectives._queue import check_queue, enqueued, mean_over_other_views
from coupled.objectives._ranges import above_zero, check_width

HIDDEN = 4096  # default width of the predictor's hidden layer


def check(*, temperature: float, queue_size: int, hidden_dim: int) -> None:
    """Raise ValueError for an option that is out of range."""
    above_zero(temperature=temperature)
    check_queue(queue_size=queue_size)
    check_width(hidden_dim=hidden_dim)


def needs(*, queue_size: int = 98304, hidden_dim: int = HIDDEN, **_options: object) -> Needs:
    """Declare the predictor and the queue of projections."""
    return Needs(
        ("projection", "prediction"),
        gathered=("projection", "prediction"),
        heads={"predictor": Head("mlp_predictor", "unnormalised", "prediction", hidden_dim)},
        kept={"queue": Kept((queue_size, "projection"), start="unit_rows", snapshot=False)},
    )


def after_step(
    tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor], step: int, **_options: object
) -> dict[str, Tensor]:
    """Replace the oldest rows of the queue by the projections of the global batch."""
    return enqueued(tensors, "queue", batch["projection"], step)


def per_anchor(inputs: Inputs, *, temperature: float, **_options: object) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    projection_VBP = at_least_float32(inputs.outputs["projection"]).detach()
    predicted_VGP = functional.normalize(at_least_float32(inputs.gathered["prediction"]), dim=-1)
    queue_KP = inputs.kept["queue"].to(projection_VBP.dtype)
    with torch.autocast(projection_VBP.device.type, enabled=False):
        neighbour_VBP = queue_KP[(projection_VBP @ queue_KP.T).argmax(-1)]
        scores_VWBG = (neighbour_VBP / temperature)[:, None] @ predicted_VGP.mT
    own_VWB = scores_VWBG[..., inputs.first :].diagonal(dim1=2, dim2=3)
    several = len(inputs.labels_G) > 1
    return mean_over_other_views(scores_VWBG.logsumexp(-1) - own_VWB, counts=several)


def nnclr(inputs: Inputs, *, temperature: float, queue_size: int = 98304, hidden_dim: int = HIDDEN) -> Loss:
    """Return the NNCLR loss: identify the prediction of another view by the nearest neighbour of a view.

        -n_v.p_w/tau + log(sum over the images j of exp(n_v.p_wj/tau)), mean over views v and the other views w

    n_v is the row of the queue that is most similar to the projection of view v, without gradient. p_w is the
    predictor's output for view w of the same image, p_wj that of view w of image j of the global batch, all at unit
    norm. The queue has the projections of the last batches, all views of each; it starts with random directions.

    Args:
        inputs: reads the "projection" of this process [V, B, P], the "prediction" of the global batch [V, G, P], and
            the kept "queue" [K, P].
        temperature: temperature tau, above 0.
        queue_size: number of rows K of the queue.
        hidden_dim: width of the predictor's hidden layer.

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output or a kept tensor that `needs` names.
        ValueError: if the temperature is not from 1e-6 to 1e6, `queue_size` not from 1 to 2^24, or `hidden_dim` not
            from 1 to 65536; raised when the settings are loaded.

    Example:
        >>> import torch
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> outputs = {"projection": z, "prediction": z}
        >>> inputs = Inputs(outputs, outputs, labels, labels, kept={"queue": torch.eye(3)})
        >>> round(float(nnclr(inputs, temperature=1.0).mean), 4)
        0.5514

    Source: Dwibedi et al. 2021, arXiv 2104.14548, eq. 3 and 4. They enqueue one view of each image.
    """
    return mean_over_counted(per_anchor(inputs, temperature=temperature))
