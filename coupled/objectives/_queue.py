"""Objectives with a queue of rows of past batches: the queue, its labels, and the mean over pairs of views.

V views, B own images, A = V*B own anchors, G images of the global batch, K rows of a queue, P width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from coupled.objectives import Inputs, Kept, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32, log_sum_exp
from coupled.objectives._prediction import check_decay
from coupled.objectives._ranges import above_zero

LARGEST = 2**24  # rows


def check_queue(**sizes: int) -> None:
    """Raise ValueError for the first size of a queue that is not from 1 to `LARGEST`."""
    for name, size in sizes.items():
        if not 1 <= size <= LARGEST:
            raise ValueError(f"{name}: {size} is not allowed; give a number of rows from 1 to {LARGEST}")


def check_labelled_queue(*, temperature: float, queue_size: int, ema_decay: float) -> None:
    """Raise ValueError for an option of an objective with a `labelled_queue` that is out of range."""
    above_zero(temperature=temperature)
    check_queue(queue_size=queue_size)
    check_decay(ema_decay=ema_decay)


def labelled_queue(*, queue_size: int, ema_decay: float, **_options: object) -> Needs:
    """Declare the target network, and a queue of its projections "queue" [K, P] with their labels "queue_labels" [K].

    The first rows are random directions of no class (label -1).
    """
    rows = Kept((queue_size, "projection"), start="unit_rows", snapshot=False)
    kept = {"queue": rows, "queue_labels": Kept((queue_size,), start="no_class", snapshot=False)}
    keys = ("target_projection",)
    return Needs(("projection", *keys), gathered=keys, target_decay=ema_decay, kept=kept)


def enqueued(tensors: Mapping[str, Tensor], name: str, new_VGP: Tensor, step: int) -> dict[str, Tensor]:
    """Return the kept queue `name` with its oldest rows replaced by the rows of step `step` (the first is 1).

    Every step adds the same number of rows, so the place of the oldest follows from the step. A batch with more rows
    than the queue leaves its last ones.
    """
    queue_KP, rows_MP = tensors[f"kept.{name}"].clone(), new_VGP.flatten(0, 1)
    size, added = len(queue_KP), len(rows_MP)
    places_M = ((step - 1) * added + torch.arange(added, device=queue_KP.device)) % size
    queue_KP[places_M[-size:]] = rows_MP[-size:].to(queue_KP.dtype)
    return {f"kept.{name}": queue_KP}


def enqueued_with_labels(
    tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor], step: int, **_options: object
) -> dict[str, Tensor]:
    """Return the `labelled_queue` after step `step`: its oldest rows are the target network's projections, all views
    of the global batch, with their labels.
    """
    keys_VGP = batch["target_projection"]
    labels_VG = batch["labels"].expand(len(keys_VGP), -1)
    return enqueued(tensors, "queue", keys_VGP, step) | enqueued(tensors, "queue_labels", labels_VG, step)


def same_class_in_queue(inputs: Inputs) -> Tensor:
    """Return the mask of own anchors and rows of a `labelled_queue` of one class: bool [A, K]. -1 is of no class."""
    same_BK = inputs.labels_B[:, None] == inputs.kept["queue_labels"]
    return (same_BK & (inputs.labels_B >= 0)[:, None]).repeat(inputs.views, 1)


def key_among_queue(inputs: Inputs, temperature: float, left_out_AK: Tensor | None = None) -> AnchorLosses:
    """Return MoCo's losses: identify the target network's projection of another view among it and the queue's rows.

    The rows of the mask `left_out_AK` are no negatives of the anchor. An anchor without negatives does not count.
    """
    query_VBP = at_least_float32(inputs.outputs["projection"]) / temperature
    key_VBP = at_least_float32(inputs.outputs["target_projection"]).detach()
    positive_VWB = (query_VBP[:, None] * key_VBP).sum(-1)
    with torch.autocast(query_VBP.device.type, enabled=False):
        scores_VBK = query_VBP @ inputs.kept["queue"].to(query_VBP.dtype).T
    if left_out_AK is None:
        negatives_VB = scores_VBK.logsumexp(-1)
    else:
        negatives_VB = log_sum_exp(scores_VBK.flatten(0, 1), ~left_out_AK).view(len(scores_VBK), -1)
    losses_VWB = torch.logaddexp(positive_VWB, negatives_VB[:, None]) - positive_VWB
    losses_A, counted_A = mean_over_other_views(losses_VWB, counts=True)
    return AnchorLosses(losses_A, counted_A if left_out_AK is None else counted_A & ~left_out_AK.all(1))


def mean_over_other_views(losses_VWB: Tensor, *, counts: bool) -> AnchorLosses:
    """Return the mean over the other views w of the losses of view v with view w: one loss for each view of an image.

    With one view, or if not `counts`, no anchor counts.
    """
    views = len(losses_VWB)
    losses_A = (losses_VWB.sum(1) - losses_VWB.diagonal().T).div(max(views - 1, 1)).flatten()
    return AnchorLosses(losses_A, torch.full_like(losses_A, views > 1 and counts, dtype=torch.bool))
