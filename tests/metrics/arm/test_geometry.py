"""Arm metrics of the geometry of one split: against slow definitions and on clusters with known answers.

Shape letters: N images, D width, C classes, V views.
"""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from coupled.config.metric_registry import arm_metric_names, find_arm_metrics
from coupled.metrics.arm import Labelled
from coupled.metrics.undefined import Undefined

METRICS = {metric.name: metric for metric in find_arm_metrics(arm_metric_names())}
OF_A_SPLIT = [name for name, metric in METRICS.items() if metric.sees == "split"]
EVERY_SEED = settings(deadline=None, max_examples=25, derandomize=True)


def value(name: str, images: Labelled) -> float:
    (measured,) = METRICS[name].values(images).values()
    return measured.value


def some(seed: int, classes: int = 4, width: int = 6) -> Labelled:
    """Overlapping classes of 2 to 12 images, numbered with gaps."""
    generator = torch.Generator().manual_seed(seed)
    counts_C = torch.randint(2, 13, (classes,), generator=generator)
    place_N = torch.repeat_interleave(torch.arange(classes), counts_C)
    place_N = place_N[torch.randperm(len(place_N), generator=generator)]
    centres_CD = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    noise_ND = torch.randn(len(place_N), width, generator=generator, dtype=torch.float64)
    return Labelled(centres_CD[place_N] + noise_ND, 3 * place_N + 1)


def slow(name: str, images: Labelled) -> float:
    """The definitions, class by class."""
    rows, labels = images.rows_ND.numpy(), images.labels_N.numpy()
    of_class = [rows[labels == label] for label in np.unique(labels)]
    means = [each.mean(0) for each in of_class]
    if name == "effective_rank":
        return float(np.exp(entropy(np.linalg.svd(rows - rows.mean(0), compute_uv=False))))
    if name == "etf_deviation":
        centred = np.array(means) - np.mean(means, axis=0)
        gram, frame = centred @ centred.T, np.eye(len(means)) - 1 / len(means)
        return float(np.linalg.norm(gram / np.linalg.norm(gram) - frame / np.linalg.norm(frame)))
    terms = []
    for i, j in itertools.permutations(range(len(means)), 2):
        line = means[i] - means[j]
        away = of_class[i] - means[i]
        if name == "directional_cdnv":
            away = (away @ (line / np.linalg.norm(line)))[:, None]
        terms.append((away**2).sum(1).mean() / (line @ line))
    if name == "root_cdnv":
        terms = list(np.sqrt(terms))
    return float(np.mean(terms))


@pytest.mark.parametrize("name", OF_A_SPLIT)
@EVERY_SEED
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 6), width=st.integers(1, 9))
def test_values_equal_the_slow_definitions(name: str, seed: int, classes: int, width: int) -> None:
    """To 1e-10, within the declared range."""
    images = some(seed, classes, width)
    found = value(name, images)
    assert found == pytest.approx(slow(name, images), rel=1e-9, abs=1e-10)
    assert METRICS[name].range[0] - 1e-12 <= found <= METRICS[name].range[1] + 1e-12


@pytest.mark.parametrize("name", OF_A_SPLIT)
@EVERY_SEED
@given(seed=st.integers(0, 2**31), size=st.floats(1e-3, 1e3), mean=st.sampled_from([0.0, 1.0, 1e6]))
def test_geometry_metrics_are_invariant_to_rotation_scale_and_mean(
    name: str, seed: int, size: float, mean: float
) -> None:
    """A mean a million times the spread must not cost digits."""
    images = some(seed)
    generator = torch.Generator().manual_seed(seed)
    turn_DD = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    moved = Labelled(size * (images.rows_ND @ turn_DD + mean), images.labels_N)
    assert value(name, moved) == pytest.approx(value(name, images), rel=1e-7)


def test_hand_computed_cdnv() -> None:
    """Class a at (0, 0) and (2, 0), class b at (1, 3) and (1, 5): variances 1, distance 4, no scatter of a along it."""
    rows_ND = torch.tensor([[0.0, 0], [2, 0], [1, 3], [1, 5]])
    images = Labelled(rows_ND, torch.tensor([0, 0, 1, 1]))
    assert value("cdnv", images) == pytest.approx(1 / 16, abs=1e-15)
    assert value("root_cdnv", images) == pytest.approx(1 / 4, abs=1e-15)
    assert value("directional_cdnv", images) == pytest.approx((0 + 1 / 16) / 2, abs=1e-15)


def test_both_conventions_of_cdnv_in_the_literature_agree() -> None:
    """The docstring of cdnv states this."""
    images = some(3)
    labels = images.labels_N.unique()
    classes = [images.rows_ND[images.labels_N == label] for label in labels]
    halved = [
        (a.var(0, correction=0).sum() + b.var(0, correction=0).sum()) / (2 * (a.mean(0) - b.mean(0)).square().sum())
        for a, b in itertools.combinations(classes, 2)
    ]
    assert value("cdnv", images) == pytest.approx(float(torch.stack(halved).mean()), abs=1e-12)


def test_round_clusters_scatter_equally_in_all_directions() -> None:
    """Then the directional CDNV is the CDNV over D; it is never more."""
    generator = torch.Generator().manual_seed(0)
    place_N = torch.arange(3).repeat(20_000)
    rows_ND = 5 * torch.eye(3, 10)[place_N] + torch.randn(len(place_N), 10, generator=generator)
    images = Labelled(rows_ND, place_N)
    assert value("cdnv", images) == pytest.approx(10 / 50, rel=0.02)
    assert value("directional_cdnv", images) == pytest.approx(1 / 50, rel=0.02)
    for seed in range(10):
        assert value("directional_cdnv", some(seed)) <= value("cdnv", some(seed))


def test_collapsed_classes_at_the_corners_of_a_simplex() -> None:
    """Complete neural collapse: no variance, no deviation; moving one corner creates a deviation."""
    corners_CD = torch.eye(5, 7, dtype=torch.float64)
    images = Labelled(corners_CD.repeat(4, 1), torch.arange(5).repeat(4))
    assert value("cdnv", images) == pytest.approx(0, abs=1e-15)
    assert value("etf_deviation", images) == pytest.approx(0, abs=1e-15)
    assert value("effective_rank", images) == pytest.approx(4, abs=1e-10)
    corners_CD[0] *= 3
    assert value("etf_deviation", Labelled(corners_CD.repeat(4, 1), images.labels_N)) > 0.1


def test_the_effective_rank_counts_equal_directions() -> None:
    """k orthogonal directions of equal size; one direction; one direction of negligible size."""
    directions = torch.linalg.qr(torch.randn(200, 8, generator=torch.Generator().manual_seed(0)).double()).Q
    directions = torch.linalg.qr(directions - directions.mean(0)).Q
    labels = torch.zeros(200, dtype=torch.int64)
    for k in (1, 3, 8):
        assert value("effective_rank", Labelled(directions[:, :k], labels)) == pytest.approx(k, abs=1e-9)
    faint = torch.cat([directions[:, :3], 1e-9 * directions[:, 3:]], dim=1)
    assert value("effective_rank", Labelled(faint, labels)) == pytest.approx(3, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "images", "reason"),
    [
        ("cdnv", Labelled(torch.ones(4, 2), torch.tensor([0, 0, 1, 1])), "two classes have the same mean"),
        ("directional_cdnv", Labelled(torch.eye(3), torch.tensor([0, 0, 7])), "class 7 has fewer than 2 images"),
        ("cdnv", Labelled(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)), "fewer than 2 classes"),
        ("etf_deviation", Labelled(torch.ones(4, 2), torch.tensor([0, 0, 1, 1])), "all classes have the same mean"),
        ("etf_deviation", Labelled(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)), "fewer than 2 classes"),
        ("effective_rank", Labelled(torch.full((9, 2), 1 / 3), torch.arange(9)), "constant features"),
    ],
)
def test_an_undefined_metric_states_its_reason(name: str, images: Labelled, reason: str) -> None:
    """A collapsed arm must have a gap in the figure, not a value from rounding noise."""
    found = value(name, images)
    assert isinstance(found, Undefined)
    assert found.reason == reason


def test_augmentation_spread_of_known_views() -> None:
    """0 for invariant features, about 1 for views independent of their image, 2 for opposite views."""
    one_ND, other_ND = torch.randn(2, 3000, 6, generator=torch.Generator().manual_seed(0)) + 100
    spread = METRICS["augmentation_spread"].values
    for views, expected in (((one_ND, one_ND), 0), ((one_ND, other_ND), 1), ((one_ND, 200 - one_ND), 2)):
        found = spread(torch.stack(views))["relative"].value
        assert found == pytest.approx(expected, abs=0.0 if not expected else 0.03)
        assert found <= METRICS["augmentation_spread"].range[1]
    assert spread(torch.ones(2, 5, 3))["relative"].value.reason == "constant features"


@EVERY_SEED
@given(seed=st.integers(0, 2**31), views=st.integers(2, 4))
def test_augmentation_spread_equals_the_slow_definition(seed: int, views: int) -> None:
    """Image by image."""
    views_VND = torch.randn(views, 7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    within = [((image - image.mean(0)) ** 2).sum() / (views - 1) for image in views_VND.transpose(0, 1).numpy()]
    everything = views_VND.flatten(0, 1).numpy()
    total = ((everything - everything.mean(0)) ** 2).sum(1).mean()
    found = METRICS["augmentation_spread"].values(views_VND)["relative"].value
    assert found == pytest.approx(np.mean(within) / total, abs=1e-12)


def test_every_metric_declares_its_variants() -> None:
    """The program derives the expected rows from the variants before it computes anything."""
    assert {metric.sees for metric in METRICS.values()} == {"classifier", "logits", "split", "views"}
    for name in OF_A_SPLIT:
        assert tuple(METRICS[name].measured(some(0))) == METRICS[name].variants
    spread = METRICS["augmentation_spread"]
    assert tuple(spread.measured(torch.ones(2, 3, 4))) == spread.variants


def test_an_unknown_metric_is_an_error_that_lists_the_known_ones() -> None:
    """A misspelt metric must not be skipped silently."""
    with pytest.raises(ValueError, match=r"unknown arm metric 'nccs'; did you mean 'nccc'"):
        find_arm_metrics(["nccs"])
