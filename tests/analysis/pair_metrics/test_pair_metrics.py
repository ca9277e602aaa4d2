"""Pair metrics: the streamed sums equal the n x n definitions, in any order and in parts, with any mean.

Shape letters: n images, D, E widths. The definitions are evaluated in numpy's long double, from the Gram matrices.
"""

import itertools
import warnings

import ckatorch.core
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr
from torch import Tensor

from analysis.pair_metrics import find_metrics, metric_names
from analysis.pair_metrics._sums import CrossSums, RowStream

PAIRS = ((0, 0), (1, 1), (0, 1))


def sums_of(x_nD: Tensor, y_nE: Tensor, transform: str, batch: int) -> list[CrossSums]:
    """The sums xx, yy, xy over batches of `batch` rows."""
    streams, sums = (RowStream(transform), RowStream(transform)), [CrossSums() for _ in PAIRS]
    for parts in zip(x_nD.split(batch), y_nE.split(batch), strict=True):
        rows = [stream.rows(part) for stream, part in zip(streams, parts, strict=True)]
        for pair, total in zip(PAIRS, sums, strict=True):
            total.update(rows[pair[0]], rows[pair[1]])
    return sums


def streamed(name: str, x_nD: Tensor, y_nE: Tensor, batch: int = 16) -> float:
    """The metric as the program computes it."""
    (metric,) = find_metrics([name])
    return metric.value(*(sums.moments() for sums in sums_of(x_nD, y_nE, metric.transform, batch)))


def definition(name: str, x_nD: Tensor, y_nE: Tensor) -> float:
    """The metric from n x n matrices."""
    x, y = (np.asarray(a.numpy(), dtype=np.longdouble) for a in (x_nD, y_nE))
    n = len(x)
    if name == "cka":
        centring = np.eye(n, dtype=np.longdouble) - np.longdouble(1) / n
        k, m = centring @ x @ x.T @ centring, centring @ y @ y.T @ centring
        return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))
    if name == "cka_debiased":
        k, m = (a @ a.T for a in (x - x.mean(0), y - y.mean(0)))  # HSIC_1 ignores a shift; the long double less so
        return float(hsic_1(k, m) / np.sqrt(hsic_1(k, k) * hsic_1(m, m)))
    assert name == "rsa", f"no definition of {name} here: a new metric needs its own"
    upper = np.triu_indices(n, 1)
    dissimilarities = []
    for a in (x, y):
        u = a / np.sqrt((a * a).sum(axis=1, keepdims=True))
        dissimilarities.append((1 - u @ u.T)[upper])
    s, t = (d - d.mean() for d in dissimilarities)
    return float((s * t).sum() / np.sqrt((s * s).sum() * (t * t).sum()))


def hsic_1(k: np.ndarray, m: np.ndarray) -> np.longdouble:
    """Song et al. 2012, eq. 5, with its matrices written out."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n, dtype=np.longdouble)
    terms = np.trace(k @ m), (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)), 2 / (n - 2) * (one @ k @ m @ one)
    return (terms[0] + terms[1] - terms[2]) / (n * (n - 3))


def related(seed: int, n: int, width: int, other_width: int, mean: float = 0.0) -> tuple[Tensor, Tensor]:
    """Two representations with something in common; their features have means of about `mean`."""
    generator = torch.Generator().manual_seed(seed)
    x_nD = torch.randn(n, width, generator=generator, dtype=torch.float64)
    mix_DE = torch.randn(width, other_width, generator=generator, dtype=torch.float64)
    y_nE = x_nD @ mix_DE + torch.randn(n, other_width, generator=generator, dtype=torch.float64)
    return x_nD + mean, y_nE + mean * torch.randn(other_width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", metric_names())
@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(5, 40),
    widths=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    batch=st.integers(1, 50),
    mean=st.sampled_from([0.0, 1.0, 30.0]),
)
def test_streamed_values_equal_the_n_by_n_definitions(
    name: str, seed: int, n: int, widths: tuple[int, int], batch: int, mean: float
) -> None:
    """A wrong term in the d x d form would be a wrong number in every figure."""
    x_nD, y_nE = related(seed, n, *widths, mean=mean)
    assert streamed(name, x_nD, y_nE, batch) == pytest.approx(definition(name, x_nD, y_nE), abs=1e-10)


@pytest.mark.parametrize("name", ["cka", "cka_debiased"])
def test_a_mean_a_million_times_the_spread_costs_no_digits(name: str) -> None:
    """Without a pilot, float64 sums of squares would keep four digits of the spread."""
    x_nD, y_nE = related(1, 60, 8, 5, mean=1e6)
    assert streamed(name, x_nD, y_nE) == pytest.approx(definition(name, x_nD, y_nE), abs=1e-10)


def test_rsa_of_rows_with_a_large_mean_keeps_its_digits() -> None:
    """With a mean of 1000 all cosines are 1 - 1e-6: the raw sums would keep four digits of their spread."""
    x_nD, y_nE = related(2, 60, 8, 5, mean=1000.0)
    assert streamed("rsa", x_nD, y_nE) == pytest.approx(definition("rsa", x_nD, y_nE), abs=1e-8)


def test_cka_equals_ckatorch() -> None:
    """An independent library that forms both Gram matrices."""
    x_nD, y_nE = related(3, 200, 24, 10, mean=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        biased = ckatorch.core.cka_base(x_nD, y_nE, kernel="linear")
        debiased = ckatorch.core.cka_batch(x_nD[None], y_nE[None])
    assert streamed("cka", x_nD, y_nE) == pytest.approx(float(biased), abs=1e-10)
    assert streamed("cka_debiased", x_nD, y_nE) == pytest.approx(float(debiased), abs=1e-9)


def test_rsa_equals_scipy() -> None:
    """Pearson correlation of the condensed cosine distance matrices."""
    x_nD, y_nE = related(4, 200, 24, 10, mean=2.0)
    distances = (pdist(a.numpy(), "cosine") for a in (x_nD, y_nE))
    assert streamed("rsa", x_nD, y_nE) == pytest.approx(pearsonr(*distances).statistic, abs=1e-10)


def test_debiased_cka_of_independent_data_is_near_zero_where_the_biased_is_not() -> None:
    """Wide features and few images make unrelated representations look alike: .67 at n = D / 2."""
    generator = torch.Generator().manual_seed(0)
    x_nD, y_nD = torch.randn(2, 128, 256, generator=generator, dtype=torch.float64)
    assert streamed("cka", x_nD, y_nD) > 0.6
    assert abs(streamed("cka_debiased", x_nD, y_nD)) < 0.02


@pytest.mark.parametrize("name", metric_names())
def test_rotating_and_scaling_the_features_changes_nothing(name: str) -> None:
    """The metrics compare geometry, not coordinates; CKA, which centres, does not see a move of all rows either."""
    x_nD, y_nE = related(5, 50, 9, 6, mean=1.0)
    turned_nD = 37.0 * x_nD @ torch.linalg.qr(related(6, 9, 9, 1)[0]).Q + (0.0 if name == "rsa" else 5.0)
    assert streamed(name, turned_nD, 1e-3 * y_nE) == pytest.approx(streamed(name, x_nD, y_nE), abs=1e-12)


@pytest.mark.parametrize("name", metric_names())
def test_equal_representations_score_exactly_one(name: str) -> None:
    """Epoch 0 of every run, and twins, must show 1 and not 0.9999999999999998."""
    for seed, width in itertools.product(range(3), (3, 32, 400)):
        x_nD = related(seed, 70, width, 1, mean=0.5)[0].float()
        assert streamed(name, x_nD, x_nD.clone()) == 1.0


@pytest.mark.parametrize("name", metric_names())
def test_values_are_symmetric_and_within_the_declared_range(name: str) -> None:
    """A figure's axis relies on RANGE."""
    (metric,) = find_metrics([name])
    for seed in range(10):
        x_nD, y_nE = related(seed, 6, 5, 4)
        value = streamed(name, x_nD, y_nE * (-1) ** seed)
        assert metric.range[0] - 1e-12 <= value <= metric.range[1] + 1e-12
        assert streamed(name, y_nE * (-1) ** seed, x_nD) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("transform", ["plain", "unit"])
def test_merged_parts_equal_one_pass_whatever_their_pilots(transform: str) -> None:
    """Ranks see different images, hence have different pilots; their sums must add up to those of the whole."""
    x_nD, y_nE = related(8, 90, 7, 4, mean=3.0)
    whole = sums_of(x_nD, y_nE, transform, 10)
    merged = [CrossSums() for _ in PAIRS]
    for start, stop in ((0, 20), (20, 21), (21, 90)):
        for total, part in zip(merged, sums_of(x_nD[start:stop], y_nE[start:stop], transform, 10), strict=True):
            total.merge(part)
    for total in merged:
        total.merge(CrossSums())
    ours, theirs = ([sums.moments() for sums in three] for three in (merged, whole))
    for metric in find_metrics(metric_names()):
        assert metric.value(*ours) == pytest.approx(metric.value(*theirs), abs=1e-12)
    for one, other in zip(ours, theirs, strict=True):
        assert one.n == other.n
        torch.testing.assert_close(one.means, other.means, rtol=1e-13, atol=1e-13)
        for name in ("products_DE", "squares", "thirds", "squares_product"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-10)


def test_equal_rows_in_some_batches_only_give_the_same_sums() -> None:
    """Equal rows are summed by another product than unequal ones; both kinds may occur in one pass."""
    x_nD, _ = related(13, 60, 400, 1, mean=1.0)
    y_nD = x_nD.clone()
    y_nD[30:] += 1e-3 * related(14, 30, 400, 1)[0]
    for batch in (15, 60):
        moments = sums_of(x_nD, y_nD, "plain", batch)[2].moments()
        expected = (x_nD - x_nD.mean(0)).T @ (y_nD - y_nD.mean(0))
        torch.testing.assert_close(moments.products_DE, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("name", metric_names())
def test_float32_features_are_summed_in_float64(name: str) -> None:
    """Networks give float32; sums in float32 would be off by 1e-3 for features with a large mean."""
    x_nD, y_nE = (features.float() for features in related(15, 60, 9, 6, mean=100.0))
    assert streamed(name, x_nD, y_nE) == pytest.approx(definition(name, x_nD, y_nE), abs=1e-9)


@pytest.mark.parametrize("name", metric_names())
def test_the_order_and_size_of_batches_do_not_matter(name: str) -> None:
    """A score is a property of the images, not of how they were handed in."""
    x_nD, y_nE = related(9, 80, 7, 4, mean=1.0)
    expected = streamed(name, x_nD, y_nE)
    order_n = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    for batch in (1, 7, 80):
        assert streamed(name, x_nD[order_n], y_nE[order_n], batch) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", metric_names())
def test_constant_features_have_no_score(name: str) -> None:
    """A collapsed arm must show a gap in the figure, not rounding noise that looks like a value."""
    x_nD, _ = related(10, 30, 5, 5)
    for entry, batch in itertools.product((0.0, 0.1, 1 / 3, 1e5 / 7), (3, 7, 11, 30)):
        constant_nE = torch.tensor([entry, 2 * entry, -entry / 3], dtype=torch.float64).expand(30, 3)
        assert np.isnan(streamed(name, x_nD, constant_nE, batch))


@pytest.mark.parametrize("name", metric_names())
def test_too_few_images_have_no_score(name: str) -> None:
    """One image has nothing to compare, and HSIC_1 divides by n - 3."""
    x_nD, y_nE = related(11, 3, 4, 4)
    assert np.isnan(streamed(name, x_nD[:1], y_nE[:1]))
    assert np.isnan(streamed("cka_debiased", x_nD, y_nE))


def test_rsa_counts_a_row_of_zeros_as_unlike_every_other() -> None:
    """Fresh networks have images whose ReLU features are all zero; one such image must not lose the epoch."""
    x_nD, y_nE = related(12, 40, 6, 5, mean=1.0)
    x_nD[[3, 17]] = 0
    similarities = (
        torch.nn.functional.cosine_similarity(x_nD[:, None], x_nD[None], dim=2),
        (torch.nn.functional.cosine_similarity(y_nE[:, None], y_nE[None], dim=2)),
    )
    upper = np.triu_indices(40, 1)
    expected = np.corrcoef(*(s.numpy()[upper] for s in similarities))[0, 1]
    assert streamed("rsa", x_nD, y_nE) == pytest.approx(expected, abs=1e-10)


def test_an_unknown_metric_is_an_error_that_lists_the_known_ones() -> None:
    """A misspelt metric must not be left out silently."""
    with pytest.raises(ValueError, match=r"unknown pair metric 'ckaa'; did you mean 'cka'.*cka_debiased, rsa"):
        find_metrics(["ckaa"])
