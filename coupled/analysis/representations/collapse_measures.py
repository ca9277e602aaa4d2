"""Dimensional-collapse diagnostics: spread, alignment, uniformity, spectra, and the relation of a predictor to its
inputs.

Each function returns values by (metric, detail). The detail is the convention, or the index of an eigenvalue or
direction, 1 for the largest. A value without a definition is `Undefined`.

Shape letters: N images, V views, D width, P projection width, M rows. Computed in float64.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from coupled.metrics.arm import Labelled, effective_rank
from coupled.metrics.undefined import Undefined

Values = dict[tuple[str, str | int], float]
TOP = 16  # number of eigenvalues and directions that are written
POINT_SPREAD, LINE_SHARE = 0.05, 0.95
RANK_FLOOR, LIDAR_RIDGE = 1e-7, 1e-4  # the papers' epsilon of the shares, and delta of the within-image covariance
BLOCK = 2**22  # entries of a strip of the matrix of distances


def of_rows(rows_ND: Tensor) -> Values:
    """Spread, uniformity, effective rank, and the largest eigenvalues of the covariance with their shares of its trace.

    `spread` is the root of the total variance of the rows at unit norm: the root mean square standard deviation of a
    coordinate times sqrt(D). It is 1 if the directions are spread evenly and 0 if all are equal (Chen & He 2021, arXiv
    2011.10566, section 4.1). The spectrum is that of the centred rows without normalisation.
    """
    rows_ND = rows_ND.double()
    unit_ND = F.normalize(rows_ND, dim=1)
    centred_ND = rows_ND - rows_ND[0]  # rows far from 0 lose no digits, and equal rows become exactly 0
    centred_ND = centred_ND - centred_ND.mean(0)
    around_ND = unit_ND - unit_ND[0]
    (rank,) = effective_rank.values(Labelled(rows_ND, torch.empty(0))).values()
    values: Values = {
        ("spread", "unit_norm"): float(around_ND.var(0, correction=0).sum().sqrt()),
        ("uniformity", "t=2"): uniformity(unit_ND),
        ("effective_rank", "centred"): rank.value,
        ("rankme", "uncentred"): smooth_rank(torch.linalg.svdvals(rows_ND)),
    }
    covariance_DD = centred_ND.T @ centred_ND / max(len(rows_ND) - 1, 1)
    return values | spectrum("eigenvalue", covariance_DD, with_shares=True)


def uniformity(unit_ND: Tensor) -> float:
    """log of the mean of exp(-2 ||x - y||^2) over pairs of different rows of unit norm: 0 for a point, lower if even.

    Source: Wang & Isola 2020, arXiv 2005.10242, section 4.1.2, t = 2. The matrix of pairs is computed in strips.
    """
    count = len(unit_ND)
    if count < 2:
        return Undefined("one image")
    total = unit_ND.new_zeros(())
    for strip_MD in unit_ND.split(max(1, BLOCK // count)):
        total += (-2 * torch.cdist(strip_MD, unit_ND, compute_mode="donot_use_mm_for_euclid_dist").square()).exp().sum()
    return float(((total - count) / (count * (count - 1))).log())


def smooth_rank(values_K: Tensor) -> float:
    """Return exp(-sum_k p_k log p_k) with p_k = s_k / sum_l s_l + 1e-7 of values s_k >= 0; undefined if all are 0.

    RankMe is that of the singular values of the rows, uncentred (Garrido et al. 2023, arXiv 2210.02885, eq. 1).
    """
    total = values_K.sum()
    if total == 0:
        return Undefined("all values are 0")
    return float(torch.special.entr(values_K / total + RANK_FLOOR).sum().exp())


def lidar(views_VND: Tensor) -> Values:
    """LiDAR: the smooth rank of the covariance of images relative to that of the views of an image, 1 to D.

        eigenvalues of W^(-1/2) B W^(-1/2), W = within-image covariance + 1e-4 I, B = covariance of the images' means

    The images are the classes of a linear discriminant analysis. The ridge makes it depend on the scale of the rows.
    With V views, B and W have ranks of at most N - 1 and N (V - 1); the paper uses 50 views of 1000 images.
    Source: Thilak et al. 2023, arXiv 2312.04000, section 3.
    """
    views_VND = views_VND.double() - views_VND[0, 0]
    count, images, width = views_VND.shape
    if count < 2 or images < 2:
        return {("lidar", f"views={count}"): Undefined("fewer than 2 views or images")}
    means_ND = views_VND.mean(0)
    within_MD = (views_VND - means_ND).flatten(0, 1)
    between_ND = means_ND - means_ND.mean(0)
    within_DD = within_MD.T @ within_MD / (images * (count - 1)) + LIDAR_RIDGE * torch.eye(width, dtype=torch.float64)
    between_DD = between_ND.T @ between_ND / (images - 1)
    root_DD = torch.linalg.inv(torch.linalg.cholesky(within_DD))  # the eigenvalues are those of W^(-1) B
    values_D = torch.linalg.eigvalsh(root_DD @ between_DD @ root_DD.T).clamp(min=0)
    return {("lidar", f"views={count}"): smooth_rank(values_D)}


def alignment(views_VND: Tensor) -> Values:
    """The mean squared distance of two views of an image at unit norm: 0 if augmentation has no effect, about 2 if
    views are independent.

    Source: Wang & Isola 2020, arXiv 2005.10242, section 4.1.1, alpha = 2; over pairs of different views.
    """
    unit_VND = F.normalize(views_VND.double(), dim=2)
    views = len(unit_VND)
    pairs = [(unit_VND[v] - unit_VND[w]).square().sum(1).mean() for v in range(views) for w in range(v)]
    return {("alignment", "alpha=2"): float(torch.stack(pairs).mean())}


def of_predictor(inputs_MP: Tensor, weight_PP: Tensor | None) -> Values:
    """The spectrum of F = E[f f^T] of the predictor's inputs f, and the relation of a predictor matrix W to F.

    `asymmetry` is ||W - W^T|| / ||W||, 0 if symmetric, at most 2; `predictor_singular_value` is the spectrum of W. For
    the eigenvectors u_j of F, largest eigenvalue first: `eigenspace_alignment` is the cosine of u_j and W u_j, 1 if u_j
    is an eigenvector of W; `predictor_along` is p_j = u_j^T W u_j. In DirectPred's theory the eigenvalue s_j of F is
    p_j^2 / alpha plus a term that decays. Source: arXiv 2102.06810, sections 3 and 5.
    """
    inputs_MP = inputs_MP.double()
    correlation_PP = inputs_MP.T @ inputs_MP / len(inputs_MP)
    values = spectrum("correlation_eigenvalue", correlation_PP, with_shares=False)
    if weight_PP is None:
        return values
    weight_PP = weight_PP.double()
    norm = weight_PP.norm()
    values["asymmetry", "frobenius"] = float((weight_PP - weight_PP.T).norm() / norm) if norm else Undefined("W is 0")
    for j, value in enumerate(torch.linalg.svdvals(weight_PP)[:TOP].tolist(), 1):
        values["predictor_singular_value", j] = value
    directions_PJ = torch.linalg.eigh(correlation_PP).eigenvectors.flip(1)[:, :TOP]
    images_PJ = weight_PP @ directions_PJ
    along_J, lengths_J = (directions_PJ * images_PJ).sum(0), images_PJ.norm(dim=0)
    for j, (along, length) in enumerate(zip(along_J.tolist(), lengths_J.tolist(), strict=True), 1):
        values["eigenspace_alignment", j] = along / length if length else Undefined("W u_j is 0")
        values["predictor_along", j] = along
    return values


def spectrum(metric: str, symmetric_DD: Tensor, *, with_shares: bool) -> Values:
    """The largest eigenvalues with details 1, 2, ...; `with_shares` adds shares of the trace as `<metric>_share`."""
    largest = torch.linalg.eigvalsh(symmetric_DD).flip(0).clamp(min=0)
    values: Values = {(metric, j): value for j, value in enumerate(largest[:TOP].tolist(), 1)}
    if with_shares:
        total = float(largest.sum())
        for j, value in enumerate(largest[:TOP].tolist(), 1):
            values[f"{metric}_share", j] = value / total if total else Undefined("constant features")
    return values


def verdict(values: Values) -> tuple[str, str]:
    """Return "point", "line" or "no" for the values of `of_rows`, and a text with the numbers that show it.

    Point: the spread is below 0.05. Line: one direction has 95 % of the variance. Two classes that a supervised
    objective has contracted are a line as well.
    """
    spread, share = values["spread", "unit_norm"], values["eigenvalue_share", 1]
    if spread < POINT_SPREAD:
        return "point", f"spread {spread:.2g}; 1 is even, 0 is a single point"
    if share >= LINE_SHARE:
        return "line", f"spread {spread:.2g}, {share:.1%} of the variance in one direction"
    return "no", ""


def with_reasons(values: Values) -> Iterator[tuple[str, str | int, str]]:
    """Yield metric, detail and reason of each undefined value."""
    for (metric, detail), value in values.items():
        if isinstance(value, Undefined):
            yield metric, detail, value.reason
