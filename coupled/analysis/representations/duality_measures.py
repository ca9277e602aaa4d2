"""The sample- and dimension-contrastive criteria of a representation and its norms: the duality on trained networks.

Shape letters: N images, D width. Computed in float64. A matrix has one image per row, the transpose of K in the paper.
"""

import torch.nn.functional as F
from torch import Tensor

from coupled.analysis.representations.collapse_measures import Values
from coupled.objectives._batches import squared_off_diagonal

VARIANTS = ("unnormalised", "unit_norm")


def duality(rows_ND: Tensor) -> Values:
    """Both criteria and the norms of rows before normalisation, and the criteria of the rows at unit norm.

        l_c  = sum_{i != j} (z_i.z_j)^2 over images,       sample_norms    = sum_i |z_i|^4
        l_nc = sum_{i != j} (k_i.k_j)^2 over dimensions,   dimension_norms = sum_j |k_j|^4

    z_i are the rows and k_j the columns, neither centred. l_nc + dimension_norms = l_c + sample_norms for any matrix,
    because both sides are ||Z^T Z||_F^2 = ||Z Z^T||_F^2, so l_c needs no N x N matrix. `norm` is the mean norm of a
    row, `norm_std` its standard deviation over the rows. `dimension_norm` and `dimension_norm_std` are those of the
    columns, divided by sqrt(N). With equal norms of rows and of columns, the criteria differ by a constant.
    Source: Garrido et al. 2022, arXiv 2206.02574, definition 3.2 and theorem 3.3.
    """
    rows_ND = rows_ND.double()
    norms_N, norms_D = rows_ND.norm(dim=1), rows_ND.norm(dim=0) / len(rows_ND) ** 0.5
    values = criteria(rows_ND, VARIANTS[0]) | criteria(F.normalize(rows_ND, dim=1), VARIANTS[1])
    for name, norms in (("norm", norms_N), ("dimension_norm", norms_D)):
        values[name, VARIANTS[0]] = float(norms.mean())
        values[f"{name}_std", VARIANTS[0]] = float(norms.std(correction=0))
    return values


def criteria(rows_ND: Tensor, variant: str) -> Values:
    """The criteria of rows [N, D] in float64 and the norms by which they differ, with `variant` as their detail."""
    products_DD = rows_ND.T @ rows_ND
    samples = float(rows_ND.square().sum(1).square().sum())
    dimensions, l_nc = float(products_DD.diagonal().square().sum()), float(squared_off_diagonal(products_DD))
    return {
        ("l_c", variant): max(0.0, l_nc + dimensions - samples),
        ("l_nc", variant): l_nc,
        ("sample_norms", variant): samples,
        ("dimension_norms", variant): dimensions,
    }
