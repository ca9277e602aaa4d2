"""An augmentation step of your own: with probability `prob` one colour channel of a view becomes grey.

coupled train demo 'augmentation.steps=[{name: "examples/channel_dropout.py:channel_dropout", prob: 0.3}]'
"""

import torch
from torch import Tensor


def channel_dropout(views_M3SS: Tensor, random_MR: Tensor, *, prob: float = 0.2) -> Tensor:
    """Views in [0, 1] -> views; random_MR are 8 uniform numbers of each view, drawn from the run's plan of views."""
    dropped_M = random_MR[:, 0] < prob
    channel_M = (random_MR[:, 1] * 3).long()
    mask_M3 = dropped_M[:, None] & (channel_M[:, None] == torch.arange(3, device=views_M3SS.device))
    return views_M3SS.masked_fill(mask_M3[:, :, None, None], 0.5)
