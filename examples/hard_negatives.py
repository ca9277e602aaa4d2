"""A user-defined objective: NT-Xent with larger weights for hard negatives (Robinson et al. 2021, arXiv 2010.04592).

coupled train demo 'arms={cl: dcl, hard: {objective: "examples/hard_negatives.py:hard_negatives", beta: 1.0}}'
coupled check-objective examples/hard_negatives.py:hard_negatives beta=0.5
"""

import torch
from torch import Tensor

from coupled.objectives import Inputs


def hard_negatives(inputs: Inputs, *, temperature: float = 0.5, beta: float = 1.0) -> Tensor:
    """-log e^{s_ip/tau} / (e^{s_ip/tau} + N E_q[e^{s_ia/tau}]), q weights negative a by e^{beta s_ia}; two views.

    The loss is the mean over the anchors of this process. Negatives are the N views of the other images of the global
    batch.

    Args:
        inputs: reads "projection" (unit norm) of this process [V, B, P] and of the global batch [V, G, P]; V = 2.
        temperature: temperature tau, above 0; in a run the default is the setting `temperature`.
        beta: concentration on negatives close to the anchor; 0 gives all the same weight, which is NT-Xent.

    Returns:
        The loss in nats, a scalar.

    Raises:
        ValueError: if there are not two views.

    Example:
        >>> z = torch.eye(3).repeat(2, 1, 1)  # two equal views of three orthogonal projections
        >>> labels = torch.zeros(3, dtype=torch.int64)  # not read
        >>> inputs = Inputs({"projection": z}, {"projection": z}, labels, labels)
        >>> round(float(hard_negatives(inputs, temperature=1.0)), 4)
        0.9048

    Source: Robinson et al. 2021, arXiv 2010.04592, eq. 4.
    """
    images, views = len(inputs.labels_G), inputs.views
    own_VBP, all_VGP = inputs.outputs["projection"], inputs.gathered["projection"]
    cosines_AM = own_VBP.flatten(0, 1) @ all_VGP.flatten(0, 1).T

    # image b of this process is image `first` + b of the global batch; row v * G + n is view v of image n
    image_B = inputs.first + torch.arange(len(inputs.labels_B), device=cosines_AM.device)
    image_M = torch.arange(images, device=cosines_AM.device).repeat(views)
    negatives_AM = image_B.repeat(views)[:, None] != image_M
    first_BP, second_BP = own_VBP
    positives_A = (first_BP * second_BP).sum(1).repeat(views) / temperature

    weights_AM = (beta * cosines_AM).masked_fill(~negatives_AM, -torch.inf).softmax(1)
    expected_A = (weights_AM * (cosines_AM / temperature).exp()).sum(1)
    return ((positives_A.exp() + negatives_AM.sum(1) * expected_A).log() - positives_A).mean()
