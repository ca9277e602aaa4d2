"""The n x n dissimilarities of a subset of images. Shape letters: n images, D width."""

import torch
from torch import Tensor


def cosine_dissimilarities(rows_nD: Tensor) -> Tensor:
    """Return 1 - cosine of every two rows, float64 [n, n]; a row of zeros has cosine 0 with every other row.

    It is computed as half the squared distance of unit rows, which is precise even if a large mean makes all cosines
    close to 1. Values are rounded to 12 digits of the largest, so that values that differ only by rounding errors
    become equal. Rows of the same direction have the value 0.
    """
    rows_nD = rows_nD.double()
    norms_n1 = rows_nD.norm(dim=1, keepdim=True)
    zero_n1 = (norms_n1 == 0).double()
    units_nD = rows_nD / (norms_n1 + zero_n1)
    from_first_nD = units_nD - units_nD[0]
    centred_nD = from_first_nD - from_first_nD.mean(dim=0)
    half_n1 = centred_nD.square().sum(dim=1, keepdim=True) / 2 + zero_n1 / 2
    pairs_nn = half_n1 + half_n1.T - centred_nD @ centred_nD.T
    step = max(
        float(pairs_nn.max()) * 2**-42, 2**-100
    )  # a unit row is off by 2^-53, so the square of a distance by less
    return (pairs_nn / step).round() * step


def all_equal(values_P: Tensor) -> bool:
    """Whether all values are equal."""
    return values_P.numel() == 0 or bool(values_P.max() == values_P.min())


def upper_triangle(pairs_nn: Tensor) -> Tensor:
    """Return the entries of pairs i < j, [n (n - 1) / 2]."""
    n = len(pairs_nn)
    first_P, second_P = torch.triu_indices(n, n, 1, device=pairs_nn.device)
    return pairs_nn[first_P, second_P]
