"""Effective rank: the number of directions of feature space that a representation uses."""

import torch

from coupled.metrics.arm import Labelled, Measured
from coupled.metrics.arm._arrays import Matrix, rows_on_cpu
from coupled.metrics.undefined import Undefined

SEES = "split"
LABELS = False
DETAILS = ("centred",)
RANGE = (1.0, float("inf"))
INVARIANCES = ("rotation", "permutation", "scale", "shift", "image_order")


def effective_rank(x: Matrix) -> float:
    """Return the effective rank of the centred rows: how many directions of feature space they use.

        exp(-sum_k p_k log p_k) with p_k = s_k / sum_l s_l

    s_k are the singular values of the centred rows [N, D].

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

    Source: Roy and Vetterli 2007, EUSIPCO; used on representations by Garrido et al. 2023, arXiv 2210.02885
    (uncentred).
    """
    (measured,) = values(Labelled(rows_on_cpu(x, "x"), torch.empty(0))).values()
    return measured.value


def values(images: Labelled) -> dict[str, Measured]:
    """Return the effective rank; labels are not read."""
    rows_ND = images.rows_ND.double() - images.rows_ND[0]
    values_K = torch.linalg.svdvals(rows_ND - rows_ND.mean(dim=0))
    if not values_K.any():
        return {"centred": Measured(Undefined("constant features"))}
    shares_K = values_K / values_K.sum()
    return {"centred": Measured(float(torch.special.entr(shares_K).sum().exp()))}
