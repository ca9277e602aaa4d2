"""Pair metrics by definition, from n x n matrices in numpy's long double, and test representations.

Shape letters: n images, D, E widths.
"""

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from coupled.analysis.representations.pair_scores import Score, scores
from coupled.config.metric_registry import find_pair_metrics


def streamed(name: str, x_nD: Tensor, y_nE: Tensor, batch: int = 16) -> float:
    """Return the metric as the program computes it, in batches, with all images in one subset."""
    metrics = {metric.name: metric for metric in find_pair_metrics([name])}
    score = Score("x", "y", "h", name)
    parts = zip(x_nD.split(batch), y_nE.split(batch), strict=True)
    return scores(({("x", "h"): x, ("y", "h"): y} for x, y in parts), [score], metrics)[score]


def best(name: str) -> float:
    """Return the score of equal representations."""
    (metric,) = find_pair_metrics([name])
    return metric.range[metric.direction == "higher"]


def definition(name: str, x_nD: Tensor, y_nE: Tensor) -> float:
    """Return the metric from n x n matrices."""
    x, y = (np.asarray(a.numpy(), dtype=np.longdouble) for a in (x_nD, y_nE))
    n = len(x)
    centring = np.eye(n, dtype=np.longdouble) - np.longdouble(1) / n
    upper = np.triu_indices(n, 1)
    if name == "cka":
        k, m = centring @ x @ x.T @ centring, centring @ y @ y.T @ centring
        return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))
    if name == "cka_debiased":
        k, m = (a @ a.T for a in (x - x.mean(0), y - y.mean(0)))  # centring only reduces rounding errors
        return float(hsic_1(k, m) / np.sqrt(hsic_1(k, k) * hsic_1(m, m)))
    if name == "rsa":
        return correlation(*((1 - cosines(a))[upper] for a in (x, y)))
    if name == "rsa_correlation":
        return correlation(*((1 - cosines(a - a.mean(1, keepdims=True)))[upper] for a in (x, y)))
    if name == "rsa_spearman":
        return correlation(*(rankdata((1 - cosines(a))[upper]).astype(np.longdouble) for a in (x, y)))
    if name == "procrustes":  # singular values of X^T Y are the roots of the eigenvalues of the Gram matrices' product
        x, y = ((centring @ a).astype(np.float64) for a in (x, y))
        eigenvalues = np.linalg.eigvals(x @ x.T @ y @ y.T)
        largest = np.sort(eigenvalues.real)[::-1][: min(x.shape[1], y.shape[1], n - 1)]
        return float(np.sqrt(largest).sum() / (np.linalg.norm(x) * np.linalg.norm(y)))
    if name == "angle":
        return float(np.degrees(np.arccos(definition("cka", x_nD, y_nE))))
    if name in ("svcca", "pwcca"):
        return canonical(name, *((centring @ a).astype(np.float64) for a in (x, y)))
    if name.startswith("linear_predictivity"):
        of, from_ = (x, y) if name.endswith("reverse") else (y, x)
        return least_squares(*((centring @ a).astype(np.float64) for a in (of, from_)))
    assert name == "mutual_knn", f"no definition of {name} here: a new metric needs its own"
    if n < 12:
        return float("nan")
    near = [
        [set(sorted(set(range(n)) - {i}, key=lambda j, s=s: -s[j])[:10]) for i, s in enumerate(cosines(a))]
        for a in (x, y)
    ]
    return sum(len(ours & theirs) for ours, theirs in zip(*near, strict=True)) / (10 * n)


def canonical(name: str, x: np.ndarray, y: np.ndarray) -> float:
    """Return SVCCA or PWCCA of centred rows from singular vectors of n rows; NaN if the directions fill the space."""
    kept = []
    for a in (x, y):
        left, roots, _ = np.linalg.svd(a, full_matrices=False)
        share = np.cumsum(roots**2) / (roots**2).sum()
        count = 1 + int((share < 0.99).sum()) if name == "svcca" else int((roots > 1e-5 * roots[0]).sum())
        kept.append(left[:, :count])
    if kept[0].shape[1] + kept[1].shape[1] > len(x) - 1:
        return float("nan")
    mixed, correlations, _ = np.linalg.svd(kept[0].T @ kept[1], full_matrices=False)
    if name == "svcca":
        return float(correlations.mean())
    variates = (kept[0] @ mixed).T
    weights = [sum(abs(variate @ feature) for feature in x.T) for variate in variates]
    return float(np.dot(weights, correlations) / np.sum(weights))


def least_squares(of: np.ndarray, from_: np.ndarray) -> float:
    """Return R^2 of least squares on centred rows; NaN if the fit is exact for any rows."""
    if np.linalg.matrix_rank(from_) >= len(from_) - 1:
        return float("nan")
    residual = of - from_ @ np.linalg.lstsq(from_, of, rcond=None)[0]
    return float(1 - (residual**2).sum() / (of**2).sum())


def cosines(a: np.ndarray) -> np.ndarray:
    """Return the cosine similarity of all pairs of rows."""
    u = a / np.sqrt((a * a).sum(axis=1, keepdims=True))
    return u @ u.T


def correlation(s: np.ndarray, t: np.ndarray) -> float:
    """Return the Pearson correlation."""
    s, t = s - s.mean(), t - t.mean()
    return float((s * t).sum() / np.sqrt((s * s).sum() * (t * t).sum()))


def hsic_1(k: np.ndarray, m: np.ndarray) -> np.longdouble:
    """Return the estimator of Song et al. 2012, eq. 5, with explicit matrices."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n, dtype=np.longdouble)
    terms = np.trace(k @ m), (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)), 2 / (n - 2) * (one @ k @ m @ one)
    return (terms[0] + terms[1] - terms[2]) / (n * (n - 3))


def related(seed: int, n: int, width: int, other_width: int, mean: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return two correlated representations; their features have means of about `mean`."""
    generator = torch.Generator().manual_seed(seed)
    x_nD = torch.randn(n, width, generator=generator, dtype=torch.float64)
    mix_DE = torch.randn(width, other_width, generator=generator, dtype=torch.float64)
    y_nE = x_nD @ mix_DE + torch.randn(n, other_width, generator=generator, dtype=torch.float64)
    return x_nD + mean, y_nE + mean * torch.randn(other_width, generator=generator, dtype=torch.float64)
