"""A user-defined augmentation step: with probability `prob` one colour channel of a view becomes grey.

coupled train demo 'augmentation.steps=[{name: "examples/channel_dropout.py:channel_dropout", prob: 0.3}]'
"""

import torch
from torch import Tensor


def channel_dropout(views_M3SS: Tensor, random_MR: Tensor, *, prob: float = 0.2) -> Tensor:
    """Set one colour channel of some views to grey.

    Args:
        views_M3SS: views with values in [0, 1].
        random_MR: 8 uniform random numbers in [0, 1) per view, which come from the seed of the run.
        prob: probability that a view loses a channel, 0 to 1.

    Returns:
        Views of the same shape.

    Example:
        >>> views = torch.zeros(1, 3, 8, 8)
        >>> channel_dropout(views, torch.zeros(1, 8)).mean(dim=(2, 3))
        tensor([[0.5000, 0.0000, 0.0000]])
    """
    dropped_M = random_MR[:, 0] < prob
    channel_M = (random_MR[:, 1] * 3).long()
    mask_M3 = dropped_M[:, None] & (channel_M[:, None] == torch.arange(3, device=views_M3SS.device))
    return views_M3SS.masked_fill(mask_M3[:, :, None, None], 0.5)
