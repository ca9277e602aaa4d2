"""Cross-entropy of a linear classifier on the projection or the embedding of every view: the supervised CE arm.

V views, B images of this process, A = V*B anchors of this process, C classes.
"""

from typing import Literal

import torch
import torch.nn.functional as F

from coupled.objectives import Head, Inputs, Loss, Needs
from coupled.objectives._anchors import AnchorLosses, at_least_float32, mean_over_counted


def needs(*, input: Literal["projection", "embedding"] = "projection") -> Needs:
    """Declare the logits of a linear classifier on `input`; nothing of the global batch."""
    classifier = Head(kind="linear", input=input, output="logits")
    return Needs(outputs=("logits",), heads={"classifier": classifier}, mixed_labels=True)


def per_anchor(inputs: Inputs, *, input: Literal["projection", "embedding"] = "projection") -> AnchorLosses:
    """Return the losses of this process's anchors before the mean."""
    logits_AC = at_least_float32(inputs.outputs["logits"]).flatten(0, 1)
    labels_A = inputs.labels_B.repeat(len(inputs.outputs["logits"]))
    losses_A = F.cross_entropy(logits_AC, labels_A, reduction="none")
    if inputs.partner_labels_B is not None and inputs.own_weight_VB is not None:
        partner_A, weight_A = inputs.partner_labels_B.repeat(inputs.views), inputs.own_weight_VB.flatten().to(losses_A)
        of_partner_A = F.cross_entropy(logits_AC, partner_A, reduction="none")
        losses_A = weight_A * losses_A + (1 - weight_A) * of_partner_A
    return AnchorLosses(losses_A, torch.ones_like(labels_A, dtype=torch.bool))


def cross_entropy(inputs: Inputs, *, input: Literal["projection", "embedding"] = "projection") -> Loss:
    """Return the cross-entropy of a linear classifier on the projection or the embedding of every view.

        -l_iy + log sum_c exp(l_ic), mean over all views i

    l are the logits and y is the label. There is no temperature. `input` is the output that the classifier takes; only
    `needs` uses it. The default is the unit-norm projection, as in the training of arXiv 2510.08852. Every anchor
    counts.

    With MixUp or CutMix (`augmentation.mixup_alpha`, `augmentation.cutmix_alpha`) the loss of a view with own weight w
    is w times that of its label plus 1 - w times that of its partner's label: the cross-entropy with the mixed one-hot
    labels.

    Args:
        inputs: reads the "logits" of this process [V, B, C], its labels and, if views are mixed, the partners' labels.
        input: the output that the classifier takes: "projection" or "embedding".

    Returns:
        The mean over the counted anchors of this process in nats (scalar), how many were counted and how many were
        left out.

    Raises:
        KeyError: if `inputs` lacks an output that `needs` names.

    Example:
        >>> import torch
        >>> z = torch.zeros(2, 3, 2)  # logits of two classes, all equal
        >>> labels = torch.tensor([0, 0, 1])
        >>> inputs = Inputs({"logits": z}, {}, labels, labels)
        >>> round(float(cross_entropy(inputs).mean), 4)
        0.6931

    Source: the classifier of Luthra et al. 2025, arXiv 2510.08852; torch's `cross_entropy`.
    """
    return mean_over_counted(per_anchor(inputs, input=input))
