"""Pair metrics: streamed sums equal the n x n definitions, in any order, in chunks, and with any mean.

Shape letters: n images, D, E widths.
"""

import itertools
import warnings
from collections.abc import Callable

import ckatorch.core
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes, subspace_angles
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.neighbors import NearestNeighbors
from support.pair_definitions import best, definition, related, streamed
from torch import Tensor

from coupled.config.by_name import find
from coupled.config.metric_registry import find_pair_metrics, pair_metric_names
from coupled.metrics.pair._directions import canonical
from coupled.metrics.pair._sums import CrossSums, RowStream
from coupled.metrics.undefined import Undefined

PAIRS = ((0, 0), (1, 1), (0, 1))
PREDICTIVITIES = ("linear_predictivity", "linear_predictivity_reverse")
UNDEFINED_FOR_FEW = ("mutual_knn", "svcca", "pwcca", *PREDICTIVITIES)


def sums_of(x_nD: Tensor, y_nE: Tensor, transform: str, batch: int) -> list[CrossSums]:
    """The sums xx, yy, xy over batches of `batch` rows."""
    streams, sums = (RowStream(transform), RowStream(transform)), [CrossSums() for _ in PAIRS]
    for parts in zip(x_nD.split(batch), y_nE.split(batch), strict=True):
        rows = [stream.rows(part) for stream, part in zip(streams, parts, strict=True)]
        for pair, total in zip(PAIRS, sums, strict=True):
            total.update(rows[pair[0]], rows[pair[1]])
    return sums


@pytest.mark.parametrize("name", pair_metric_names())
@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(5, 40),
    widths=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    batch=st.integers(1, 50),
    mean=st.sampled_from([0.0, 1.0, 30.0]),
)
def test_streamed_values_equal_the_n_by_n_definitions(
    name: str, seed: int, n: int, widths: tuple[int, int], batch: int, mean: float
) -> None:
    """A wrong term in the d x d form would be a wrong number in every figure."""
    x_nD, y_nE = related(seed, n, *widths, mean=mean)
    found, expected = streamed(name, x_nD, y_nE, batch), definition(name, x_nD, y_nE)
    assert found == pytest.approx(expected, abs=1e-10, nan_ok=name in UNDEFINED_FOR_FEW)


@pytest.mark.parametrize("name", ["cka", "cka_debiased"])
def test_a_mean_a_million_times_the_spread_costs_no_digits(name: str) -> None:
    """Without shifting by a pilot mean, float64 sums of squares would keep four digits of the spread."""
    x_nD, y_nE = related(1, 60, 8, 5, mean=1e6)
    assert streamed(name, x_nD, y_nE) == pytest.approx(definition(name, x_nD, y_nE), abs=1e-10)


@pytest.mark.parametrize("name", ["rsa", "rsa_correlation", "rsa_spearman", "mutual_knn"])
def test_cosines_of_rows_with_a_large_mean_keep_their_digits(name: str) -> None:
    """With a mean of 1000 all cosines are 1 - 1e-6: the raw sums would keep four digits of their spread."""
    x_nD, y_nE = related(2, 60, 8, 5, mean=1000.0)
    assert streamed(name, x_nD, y_nE) == pytest.approx(definition(name, x_nD, y_nE), abs=1e-8)


def test_procrustes_of_features_with_a_large_mean_keeps_its_digits() -> None:
    """Centring removes a mean of a million; the definition by eigenvalues keeps half of float64's digits."""
    x_nD, y_nE = related(1, 60, 8, 5)
    moved = streamed("procrustes", x_nD + 1e6, y_nE - 3e5)
    assert moved == pytest.approx(streamed("procrustes", x_nD, y_nE), abs=1e-9)


def test_cka_equals_ckatorch() -> None:
    """An independent library that forms both Gram matrices."""
    x_nD, y_nE = related(3, 200, 24, 10, mean=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        biased = ckatorch.core.cka_base(x_nD, y_nE, kernel="linear")
        debiased = ckatorch.core.cka_batch(x_nD[None], y_nE[None])
    assert streamed("cka", x_nD, y_nE) == pytest.approx(float(biased), abs=1e-10)
    assert streamed("cka_debiased", x_nD, y_nE) == pytest.approx(float(debiased), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "distance", "compare"),
    [("rsa", "cosine", pearsonr), ("rsa_correlation", "correlation", pearsonr), ("rsa_spearman", "cosine", spearmanr)],
)
def test_rsa_equals_scipy(name: str, distance: str, compare: Callable) -> None:
    """Correlation of the condensed distance matrices."""
    x_nD, y_nE = related(4, 200, 24, 10, mean=2.0)
    distances = (pdist(a.numpy(), distance) for a in (x_nD, y_nE))
    assert streamed(name, x_nD, y_nE) == pytest.approx(compare(*distances).statistic, abs=1e-10)


def test_tied_dissimilarities_share_a_rank_as_in_scipy() -> None:
    """Rows of few integers repeat and are often orthogonal; ranks by position would favour early images."""
    generator = torch.Generator().manual_seed(0)
    x_nD, y_nD = torch.randint(0, 2, (2, 50, 4), generator=generator).double().mul_(2).sub_(1)  # unit rows are exact
    distances = [np.round(pdist(a.numpy(), "cosine"), 9) for a in (x_nD, y_nD)]
    assert len(np.unique(distances[0])) == 5
    assert streamed("rsa_spearman", x_nD, y_nD) == pytest.approx(spearmanr(*distances).statistic, abs=1e-12)


def test_procrustes_equals_scipy() -> None:
    """`procrustes` gives the minimal distance with a free scale, `orthogonal_procrustes` the nuclear norm."""
    x_nD, y_nD = related(4, 200, 10, 10, mean=2.0)
    value = streamed("procrustes", x_nD, y_nD)
    assert procrustes(x_nD.numpy(), y_nD.numpy())[2] == pytest.approx(1 - value**2, abs=1e-10)
    units = [(a - a.mean(0)) / (a - a.mean(0)).norm() for a in (x_nD, y_nD)]
    turn, nuclear_norm = orthogonal_procrustes(units[1].numpy(), units[0].numpy())
    assert value == pytest.approx(nuclear_norm, abs=1e-10)
    assert (units[0] - units[1] @ torch.from_numpy(turn)).square().sum() == pytest.approx(2 - 2 * value, abs=1e-10)


def test_canonical_correlations_equal_scipy() -> None:
    """They are the cosines of the angles between the column spaces; SVCCA without truncation is their mean."""
    x_nD, y_nE = related(4, 200, 6, 4, mean=2.0)
    cosines = np.cos(subspace_angles(*((a - a.mean(0)).numpy() for a in (x_nD, y_nE))))
    found = canonical(*(sums.moments() for sums in sums_of(x_nD, y_nE, "plain", 16)))
    assert sorted(found.correlations_M.tolist()) == pytest.approx(sorted(cosines), abs=1e-10)


def test_svcca_leaves_out_directions_with_one_percent_of_the_variance() -> None:
    """One strong shared feature among weak unrelated ones: SVCCA is its correlation, 1; PWCCA sees the others too."""
    x_nD, y_nE = (related(seed, 300, 5, 5)[0] for seed in (0, 1))
    x_nD[:, 0] *= 100
    y_nE[:, 0] = x_nD[:, 0]
    assert streamed("svcca", x_nD, y_nE) == pytest.approx(1, abs=1e-3)
    assert 0.5 < streamed("pwcca", x_nD, y_nE) < 0.999


def test_linear_predictivity_equals_scikit_learn() -> None:
    """R^2 of its regression, features weighted by their variance, in both directions."""
    x_nD, y_nE = (a.numpy() for a in related(4, 200, 6, 4, mean=2.0))
    for name, of, from_ in zip(PREDICTIVITIES, (y_nE, x_nD), (x_nD, y_nE), strict=True):
        fitted = LinearRegression().fit(from_, of).predict(from_)
        expected = r2_score(of, fitted, multioutput="variance_weighted")
        assert streamed(name, *map(torch.from_numpy, (x_nD, y_nE))) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("name", "side"), [("pwcca", 1), *zip(PREDICTIVITIES, (0, 1), strict=True)])
def test_an_invertible_linear_map_of_one_side_changes_nothing(name: str, side: int) -> None:
    """The docstrings state this; on the other side it changes the weights of the features."""
    pair = list(related(5, 100, 6, 6))
    expected = streamed(name, *pair)
    pair[side] = pair[side] @ torch.diag(torch.arange(1.0, 7.0).double())
    assert streamed(name, *pair) == pytest.approx(expected, abs=1e-11)
    pair[1 - side] = pair[1 - side] @ torch.diag(torch.arange(1.0, 7.0).double())
    assert abs(streamed(name, *pair) - expected) > 1e-3


def test_the_angle_is_that_between_gram_matrices() -> None:
    """As vectors, by the tangent of the half angle, which is precise for small angles too."""
    x_nD, y_nE = related(6, 60, 6, 4)
    k, m = (a @ a.T / torch.linalg.matrix_norm(a @ a.T) for a in (x_nD - x_nD.mean(0), y_nE - y_nE.mean(0)))
    expected = 2 * np.arctan2(float((k - m).norm()), float((k + m).norm()))
    assert streamed("angle", x_nD, y_nE) == pytest.approx(np.degrees(expected), abs=1e-10)


def test_mutual_knn_equals_scikit_learn() -> None:
    """Its brute-force cosine neighbours, the image itself left out."""
    x_nD, y_nE = related(4, 200, 24, 10, mean=2.0)
    near = [
        NearestNeighbors(n_neighbors=10, metric="cosine").fit(a.numpy()).kneighbors(return_distance=False)
        for a in (x_nD, y_nE)
    ]
    shares = [len(set(ours) & set(theirs)) / 10 for ours, theirs in zip(*near, strict=True)]
    assert 0.05 < np.mean(shares) < 0.95
    assert streamed("mutual_knn", x_nD, y_nE) == pytest.approx(np.mean(shares), abs=1e-12)


def test_mutual_knn_of_independent_data_is_at_chance() -> None:
    """10 of n - 1 images are neighbours by chance."""
    x_nD, y_nD = torch.randn(2, 400, 20, generator=torch.Generator().manual_seed(0))
    assert streamed("mutual_knn", x_nD, y_nD) == pytest.approx(10 / 399, abs=0.01)


def test_debiased_cka_of_independent_data_is_near_zero_where_the_biased_is_not() -> None:
    """Wide features and few images make unrelated representations look alike: .67 at n = D / 2."""
    generator = torch.Generator().manual_seed(0)
    x_nD, y_nD = torch.randn(2, 128, 256, generator=generator, dtype=torch.float64)
    assert streamed("cka", x_nD, y_nD) > 0.6
    assert abs(streamed("cka_debiased", x_nD, y_nD)) < 0.02


@pytest.mark.parametrize("name", pair_metric_names())
def test_equal_representations_have_exactly_the_best_score(name: str) -> None:
    """Epoch 0 of every run, and twins, must show 1 and not 0.9999999999999998; an angle must be 0."""
    for seed, width in itertools.product(range(3), (3, 32, 400)):
        x_nD = related(seed, 70, width, 1, mean=0.5)[0].float()
        assert streamed(name, x_nD, x_nD.clone()) == best(name)


@pytest.mark.parametrize("name", pair_metric_names())
def test_values_are_within_the_declared_range_and_as_symmetric_as_declared(name: str) -> None:
    """A figure's axis relies on RANGE, and a matrix of all pairs shows each pair once."""
    (metric,) = find_pair_metrics([name])
    symmetric = getattr(find("coupled.metrics.pair", name), "SYMMETRIC", True)
    for seed in range(10):
        x_nD, y_nE = related(seed, 14, 5, 4)
        value = streamed(name, x_nD, y_nE * (-1) ** seed)
        assert metric.range[0] - 1e-12 <= value <= metric.range[1] + 1e-12
        assert (streamed(name, y_nE * (-1) ** seed, x_nD) == pytest.approx(value, abs=1e-12)) == symmetric


@pytest.mark.parametrize("transform", ["plain", "unit", "unit_centred"])
def test_merged_parts_equal_one_pass_whatever_their_pilots(transform: str) -> None:
    """Ranks have different images, hence different pilot means; their sums must add up to those of one pass."""
    x_nD, y_nE = related(8, 90, 7, 4, mean=3.0)
    whole = sums_of(x_nD, y_nE, transform, 10)
    merged = [CrossSums() for _ in PAIRS]
    for start, stop in ((0, 20), (20, 21), (21, 90)):
        for total, part in zip(merged, sums_of(x_nD[start:stop], y_nE[start:stop], transform, 10), strict=True):
            total.merge(part)
    for total in merged:
        total.merge(CrossSums())
    ours, theirs = ([sums.moments() for sums in three] for three in (merged, whole))
    for metric in find_pair_metrics(pair_metric_names()):
        if metric.subset:
            continue
        assert metric.value(*ours) == pytest.approx(metric.value(*theirs), abs=1e-12)
    for one, other in zip(ours, theirs, strict=True):
        assert one.n == other.n
        torch.testing.assert_close(one.means, other.means, rtol=1e-13, atol=1e-13)
        for name in ("products_DE", "squares", "thirds", "squares_product"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-10)


def test_equal_rows_in_some_batches_only_give_the_same_sums() -> None:
    """Batches of equal rows are summed by another product than others; one pass may have both."""
    x_nD, _ = related(13, 60, 400, 1, mean=1.0)
    y_nD = x_nD.clone()
    y_nD[30:] += 1e-3 * related(14, 30, 400, 1)[0]
    for batch in (15, 60):
        moments = sums_of(x_nD, y_nD, "plain", batch)[2].moments()
        expected = (x_nD - x_nD.mean(0)).T @ (y_nD - y_nD.mean(0))
        torch.testing.assert_close(moments.products_DE, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("name", pair_metric_names())
def test_float32_features_are_summed_in_float64(name: str) -> None:
    """Networks give float32; sums in float32 would be off by 1e-3 for features with a large mean."""
    x_nD, y_nE = (features.float() for features in related(15, 60, 9, 6, mean=100.0))
    expected = definition(name, x_nD.double(), y_nE.double())
    assert streamed(name, x_nD, y_nE) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", pair_metric_names())
def test_scores_do_not_depend_on_order_and_size_of_batches(name: str) -> None:
    """A score is a property of the images, not of how they were handed in."""
    x_nD, y_nE = related(9, 80, 7, 4, mean=1.0)
    expected = streamed(name, x_nD, y_nE)
    order_n = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    for batch in (1, 7, 80):
        assert streamed(name, x_nD[order_n], y_nE[order_n], batch) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", pair_metric_names())
def test_constant_features_have_no_score(name: str) -> None:
    """A collapsed arm must have a gap in the figure, not a value from rounding noise."""
    x_nD, _ = related(10, 30, 5, 5)
    for entry, batch in itertools.product((0.0, 0.1, 1 / 3, 1e5 / 7), (3, 7, 11, 30)):
        constant_nE = torch.tensor([entry, 2 * entry, -entry / 3], dtype=torch.float64).expand(30, 3)
        value = streamed(name, x_nD, constant_nE, batch)
        assert isinstance(value, Undefined)
        assert value.reason in ("constant features", "all pairs of images are equally similar")


@pytest.mark.parametrize("name", ["rsa_spearman", "mutual_knn"])
def test_rows_of_one_direction_have_no_score(name: str) -> None:
    """Their unit vectors differ only in the last bit: ranks and neighbours would be rounding noise."""
    x_nD, scale_nD = related(10, 30, 5, 1)
    assert streamed(name, x_nD, scale_nD[:, :1].exp() * x_nD[0]).reason == "all pairs of images are equally similar"


@pytest.mark.parametrize("name", pair_metric_names())
def test_too_few_images_have_no_score(name: str) -> None:
    """One image has nothing to compare, and HSIC_1 divides by n - 3."""
    x_nD, y_nE = related(11, 3, 4, 4)
    few = streamed(name, x_nD[:1], y_nE[:1])
    assert np.isnan(few)
    assert isinstance(few, Undefined)
    assert streamed("cka_debiased", x_nD, y_nE).reason == "fewer than 4 images"
    assert streamed("mutual_knn", *related(11, 11, 4, 4)).reason == "fewer than 12 images"
    for name in ("svcca", "pwcca"):
        full = related(11, 8, 4, 4)
        assert streamed(name, *full).reason == "fewer images than directions of both representations"
        assert 0 < streamed(name, *related(11, 9, 4, 4)) < 1
    for name in PREDICTIVITIES:
        assert streamed(name, *related(11, 5, 4, 4)).reason == "no more images than directions to predict from"
        assert 0 < streamed(name, *related(11, 6, 4, 4)) < 1


@pytest.mark.parametrize(("name", "compare"), [("rsa", pearsonr), ("rsa_spearman", spearmanr)])
def test_rsa_counts_a_row_of_zeros_as_unlike_every_other(name: str, compare: Callable) -> None:
    """Fresh networks have images whose ReLU features are all zero; one such image must not lose the epoch."""
    x_nD, y_nE = related(12, 40, 6, 5, mean=1.0)
    x_nD[[3, 17]] = 0
    similarities = (
        torch.nn.functional.cosine_similarity(x_nD[:, None], x_nD[None], dim=2),
        (torch.nn.functional.cosine_similarity(y_nE[:, None], y_nE[None], dim=2)),
    )
    upper = np.triu_indices(40, 1)
    expected = compare(*(s.numpy()[upper] for s in similarities)).statistic
    assert streamed(name, x_nD, y_nE) == pytest.approx(expected, abs=1e-10)


def test_an_unknown_metric_is_an_error_that_lists_the_known_ones() -> None:
    """A misspelt metric must not be skipped silently."""
    with pytest.raises(
        ValueError, match=r"unknown pair metric 'ckaa'; did you mean 'cka'.*cka_debiased, linear_predictivity"
    ):
        find_pair_metrics(["ckaa"])
