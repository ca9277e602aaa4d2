"""Softmax with a large margin: a classifier by cosines must be right by a margin (CosFace, arXiv 1801.09414).

V views, B images of this process, A = V*B anchors of this process, C classes.
"""

from typing import Literal

import torch
import torch.nn.functional as F

from coupled.objectives import Head, Inputs, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32, mean_over_counted
from coupled.objectives._ranges import above_zero, not_negative

Input = Literal["projection", "embedding"]


def check(*, margin: float, scale: float, **_others: object) -> None:
    """Raise ValueError unless the margin is at least 0 and the scale above 0."""
    not_negative(margin=margin)
    above_zero(scale=scale)


def needs(*, scale: float = 64.0, input: Input = "projection", **_options: object) -> Needs:
    """Declare the cosines of a classifier without bias on `input`; nothing of the global batch."""
    classifier = Head(kind="cosine", input=input, output="logits", logit_scale=scale)
    return Needs(outputs=("logits",), heads={"classifier": classifier})


def per_anchor(
    inputs: Inputs, *, margin: float = 0.35, scale: float = 64.0, input: Input = "projection"
) -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    cosines_AC = at_least_float32(inputs.outputs["logits"]).flatten(0, 1)
    labels_A = inputs.labels_B.repeat(len(inputs.outputs["logits"]))
    # F.one_hot would wait for the device to check the labels
    own_AC = labels_A[:, None] == torch.arange(cosines_AC.shape[1], device=labels_A.device)
    with_margin_AC = (cosines_AC - margin).where(own_AC, cosines_AC)
    losses_A = F.cross_entropy(scale * with_margin_AC, labels_A, reduction="none")
    return AnchorLosses(losses_A, torch.ones_like(labels_A, dtype=torch.bool))


def margin_softmax(inputs: Inputs, *, margin: float = 0.35, scale: float = 64.0, input: Input = "projection") -> Loss:
    """Return the softmax loss with a large margin: the cosine of the anchor's class must exceed others by a margin.

        -scale (c_iy - margin) + log (exp(scale (c_iy - margin)) + sum_{k != y} exp(scale c_ik)), mean over all views i

    c_ik is the cosine of view i's projection, or embedding, and row k of the classifier, which has no bias; y is the
    label. The lengths of the features and of the rows do not matter. With `margin` 0 it is the normalised softmax, with
    temperature 1/scale. `input` is the output that the classifier takes; only `needs` uses it. Every anchor counts.

    Args:
        inputs: reads the "logits" of this process [V, B, C], which are cosines, and its labels.
        margin: margin between cosines, at least 0.
        scale: factor of the cosines, above 0; the inverse of a temperature.
        input: the output that the classifier takes: "projection" or "embedding".

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.
        ValueError: if `margin` is not from 0 to 1e6, or `scale` is not from 1e-6 to 1e6; raised when the settings are
            loaded.

    Example:
        >>> import torch
        >>> z = torch.zeros(2, 3, 2)  # cosines with two classes, all equal
        >>> labels = torch.tensor([0, 0, 1])
        >>> inputs = Inputs({"logits": z}, {}, labels, labels)
        >>> round(float(margin_softmax(inputs, margin=0.5, scale=2.0).mean), 4)
        1.3133

    Source: CosFace, arXiv 1801.09414, eq. 4, and its values of margin and scale; without margin NormFace, arXiv
    1704.06369. Agrees with pytorch-metric-learning's `CosFaceLoss`.
    """
    return mean_over_counted(per_anchor(inputs, margin=margin, scale=scale, input=input))
