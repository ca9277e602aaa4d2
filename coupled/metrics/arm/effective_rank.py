"""Effective rank: how many directions of feature space the representation uses.

Source: Roy and Vetterli 2007, EUSIPCO; used on representations by Garrido et al. 2023, arXiv 2210.02885 (uncentred).
"""

import torch

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.undefined import Undefined

SEES = "split"
DETAILS = ("centred",)
RANGE = (1.0, float("inf"))


def values(images: Labelled) -> dict[str, Measured]:
    """exp of the entropy of the singular values of the centred rows [N, D], these divided by their sum.

    At most min(N - 1, D). Undefined if the features are constant.
    """
    rows_ND = images.rows_ND.double() - images.rows_ND[0]
    values_K = torch.linalg.svdvals(rows_ND - rows_ND.mean(dim=0))
    if not values_K.any():
        return {"centred": Measured(Undefined("constant features"))}
    shares_K = values_K / values_K.sum()
    return {"centred": Measured(float(torch.special.entr(shares_K).sum().exp()))}
