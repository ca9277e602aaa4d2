"""Linear predictors that are computed from correlations of their inputs: the rules of DirectPred.

P projection width.
"""

from typing import Literal

import torch
from torch import Tensor

EigenvalueRule = Literal["paper", "code"]
EPS = 0.1  # default offset of the eigenvalues


def check_moving_average(*, rho: float) -> None:
    """Raise ValueError unless the decay is in [0, 1)."""
    if not 0 <= rho < 1:
        raise ValueError(f"rho: {rho} is not allowed; give a decay from 0 to below 1")


def predictor_of(
    correlation_PP: Tensor, rule: EigenvalueRule, eps: float, shift: float = 0.0, floor: float = 0.0
) -> Tensor:
    """Return W_p = U diag(p) U^T for F = U diag(s) U^T [..., P, P].

    p_j is the larger of `floor` and sqrt(max(s_j - shift, 0)) + eps max s with the rule "paper", or
    sqrt(max(s_j / max s - shift, 0)) + eps with the rule "code". Computed in float64, because the square root amplifies
    rounding errors of eigenvalues near 0. NaN if F is not finite. Source: arXiv 2102.06810, section 5, and its authors'
    code.
    """
    finite, s_P, vectors_PP = spectrum_of(correlation_PP)
    largest = s_P.amax(-1, keepdim=True)
    if rule == "paper":
        p_P = (s_P - shift).clamp(min=0).sqrt() + eps * largest
    else:
        p_P = (s_P / largest.clamp(min=torch.finfo(s_P.dtype).tiny) - shift).clamp(min=0).sqrt() + eps
    scaled_PP = vectors_PP * p_P.clamp(min=floor).unsqueeze(-2)
    return torch.where(finite, (scaled_PP @ vectors_PP.mT).to(correlation_PP.dtype), torch.nan)


def regression_of(correlation_PP: Tensor, cross_PP: Tensor, ridge: float) -> Tensor:
    """Return W_p = E[t f^T] (F + ridge I)^-1 for F = E[f f^T], the least-squares prediction of t from f.

    Eigenvalues of F + ridge I that are 0 within rounding have the inverse 0: the solution of least norm. NaN if F is
    not finite. Source: arXiv 2102.06810, table 1.
    """
    finite, s_P, vectors_PP = spectrum_of(correlation_PP)
    sums_P = s_P + ridge
    rounding = len(s_P) * torch.finfo(correlation_PP.dtype).eps * sums_P.max()
    inverses_P = torch.where(sums_P > rounding, sums_P, torch.inf).reciprocal()
    weight_PP = cross_PP.double() @ (vectors_PP * inverses_P) @ vectors_PP.T
    return torch.where(finite, weight_PP.to(correlation_PP.dtype), torch.nan)


def spectrum_of(symmetric_PP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return for matrices [..., P, P] whether they are finite [..., 1, 1], and eigenvalues of at least 0 and
    eigenvectors in float64; those of a matrix that is not finite are of 0, because a solver would raise or wait.
    """
    finite = symmetric_PP.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    eigenvalues_P, vectors_PP = torch.linalg.eigh(torch.where(finite, symmetric_PP.double(), 0))
    return finite, eigenvalues_P.clamp(min=0), vectors_PP
