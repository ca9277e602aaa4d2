"""Effective rank: the number of directions of feature space that a representation uses.

Source: Roy and Vetterli 2007, EUSIPCO; used on representations by Garrido et al. 2023, arXiv 2210.02885 (uncentred).
"""

import torch

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Matrix, rows_on_cpu
from coupled.metrics.undefined import Undefined

SEES = "split"
LABELS = False
DETAILS = ("centred",)
RANGE = (1.0, float("inf"))


def effective_rank(x: Matrix) -> float:
    """Effective rank of the centred rows (Roy and Vetterli 2007; Garrido et al. 2023, arXiv 2210.02885, uncentred).

    See `values` for the formula.

    Args:
        x: rows [N, D], one per image: a numpy array, a tensor on the CPU, or an iterable of blocks of rows.

    Returns:
        Between 1 and min(N - 1, D).
        NaN, whose attribute `reason` says why, if the features are constant.

    Raises:
        ValueError: if x is not 2-D, has fewer than 2 rows or a value that is not finite.

    Example:
        >>> round(effective_rank([[1, 0], [-1, 0], [0, 1], [0, -1]]), 10)
        2.0
    """
    (measured,) = values(Labelled(rows_on_cpu(x, "x"), torch.empty(0))).values()
    return measured.value


def values(images: Labelled) -> dict[str, Measured]:
    """exp of the entropy of the singular values of the centred rows [N, D], normalised to sum 1.

    At most min(N - 1, D). Undefined if the features are constant.
    """
    rows_ND = images.rows_ND.double() - images.rows_ND[0]
    values_K = torch.linalg.svdvals(rows_ND - rows_ND.mean(dim=0))
    if not values_K.any():
        return {"centred": Measured(Undefined("constant features"))}
    shares_K = values_K / values_K.sum()
    return {"centred": Measured(float(torch.special.entr(shares_K).sum().exp()))}
