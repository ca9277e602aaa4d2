"""Arm metrics that learn from train and are scored on test: against scikit-learn, slow forms, and known clusters.

Shape letters: N train images, M test images, D width, C classes.
"""

from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from coupled.config.metric_registry import arm_metric_names, find_arm_metrics
from coupled.metrics.arm import Labelled, Variant
from coupled.metrics.arm._probes import accuracy, shuffled_by_class
from coupled.metrics.arm.few_shot import DETAILS, SHOTS
from coupled.metrics.arm.linear_probe import best_strength
from coupled.metrics.undefined import Undefined

METRICS = {metric.name: metric for metric in find_arm_metrics(arm_metric_names())}
CLASSIFIERS = [name for name, metric in METRICS.items() if metric.sees == "classifier" and name != "probe_calibration"]


def clusters(seed: int, per_class: int, apart: float, classes: int = 5, width: int = 8) -> Labelled:
    """Unit Gaussians around class centres that are the same for every seed; classes are numbered 0, 2, 4, ..."""
    centres_CD = torch.randn(classes, width, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    place_N = torch.randperm(per_class * classes, generator=generator) % classes
    noise_ND = torch.randn(len(place_N), width, generator=generator, dtype=torch.float64)
    return Labelled(apart * centres_CD[place_N] + noise_ND, 2 * place_N)


def values(name: str, train: Labelled, test: Labelled, seed: int = 0) -> dict[str | Variant, float]:
    return {detail: measured.value for detail, measured in METRICS[name].values(train, test, seed).items()}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_separated_classes_score_1_and_mixed_classes_score_chance(name: str) -> None:
    """The two answers everybody knows: 1, and chance."""
    far = values(name, clusters(0, 30, 20.0), clusters(1, 40, 20.0))
    mixed = values(name, clusters(0, 30, 0.0), clusters(1, 400, 0.0))
    assert [Variant.of(detail) for detail in far] == list(METRICS[name].variants)
    for detail, value in far.items():
        if isinstance(value, Undefined):
            assert int(Variant.of(detail).shots) > 30
        else:
            assert value == 1
            assert mixed[detail] == pytest.approx(0.5 if "two_way" in name else 0.2, abs=0.05)


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if "two_way" not in name])
def test_classifiers_learn_from_train_only(name: str) -> None:
    """If test centres or strengths were used, a cyclic renaming of the test classes would not give accuracy 0."""
    train, test = clusters(0, 30, 20.0), clusters(1, 40, 20.0)
    renamed = values(name, train, Labelled(test.rows_ND, (test.labels_N + 2) % 10))
    assert {value for value in renamed.values() if not isinstance(value, Undefined)} == {0}


@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_nccc_equals_scikit_learn(mean: float) -> None:
    """NearestCentroid, on classes that overlap; a large mean costs no digits."""
    train, test = clusters(0, 40, 0.5), clusters(1, 80, 0.5)
    expected = NearestCentroid().fit(train.rows_ND, train.labels_N).score(test.rows_ND, test.labels_N)
    assert 0.3 < expected < 0.7
    found = values("nccc", Labelled(train.rows_ND + mean, train.labels_N), Labelled(test.rows_ND + mean, test.labels_N))
    assert found == {"euclidean": pytest.approx(expected, abs=1e-12)}


def test_nccc_counts_a_class_without_train_images_as_wrong() -> None:
    """A subset may miss a class; its test images are still counted."""
    train, test = clusters(0, 30, 20.0), clusters(1, 40, 20.0)
    kept = train.labels_N != 4
    few = Labelled(train.rows_ND[kept], train.labels_N[kept])
    assert values("nccc", few, test)["euclidean"] == pytest.approx(0.8, abs=1e-12)


def test_the_probe_minimises_the_regularised_loss() -> None:
    """C times the sum of cross-entropies plus half the squared weights; the minimum is found by torch's L-BFGS."""
    train, test = clusters(0, 40, 0.5), clusters(1, 200, 0.5)
    mean_D = train.rows_ND.mean(0)
    size = (train.rows_ND - mean_D).square().mean().sqrt()
    rows_ND, rows_MD = ((split.rows_ND - mean_D) / size for split in (train, test))
    weight_CD = torch.zeros(5, 8, dtype=torch.float64, requires_grad=True)
    bias_C = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_CD, bias_C], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = rows_ND @ weight_CD.T + bias_C
        total = 0.1 * torch.nn.functional.cross_entropy(logits, train.labels_N // 2, reduction="sum")
        total = total + weight_CD.square().sum() / 2
        total.backward()
        return total

    optimizer.step(loss)
    expected = ((rows_MD @ weight_CD.T + bias_C).argmax(1) * 2 == test.labels_N).double().mean()
    assert accuracy(train, test, 0.1) == pytest.approx(float(expected), abs=2e-3)


def test_the_probe_is_invariant_to_mean_and_scale_of_the_features() -> None:
    """Otherwise one regularisation strength would mean something else for every arm."""
    train, test = clusters(0, 40, 0.5), clusters(1, 200, 0.5)
    moved = [Labelled(1e-3 * split.rows_ND + 100, split.labels_N) for split in (train, test)]
    assert accuracy(*moved, 1.0) == pytest.approx(accuracy(train, test, 1.0), abs=2e-3)


def test_the_regularisation_strength_is_chosen_on_train() -> None:
    """Few images with many noisy features need more regularisation than many images with few features."""
    generator = torch.Generator().manual_seed(5)

    def labelled(images: int, width: int) -> Labelled:
        rows_ND = torch.randn(images, width, generator=generator, dtype=torch.float64)
        noisy_N = rows_ND[:, 0] + torch.randn(images, generator=generator, dtype=torch.float64)
        return Labelled(rows_ND, (noisy_N > 0).long())

    weak, strong = best_strength(labelled(2000, 2), 0), best_strength(labelled(200, 100), 0)
    assert strong <= 0.1
    assert best_strength(clusters(0, 40, 20.0), 0) == 1e-3  # of equally good ones the most regularised
    assert weak in (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)


def test_the_protocol_of_the_paper_has_no_bias_and_the_other_has() -> None:
    """Two classes in one direction at two distances: a linear map without bias cannot separate them."""
    rows_ND = torch.tensor([1.0, 1.1, 3.0, 3.1]).repeat(10)[:, None]
    split = Labelled(rows_ND, (rows_ND[:, 0] > 2).long())
    assert values("linear_probe", split, split) == {"regularised": 1.0, "paper": 0.5}


def test_the_protocol_of_the_paper_is_300_steps_of_adam() -> None:
    """Kingma and Ba 2015, algorithm 1, written out, with rate 0.003."""
    train, test = clusters(0, 40, 0.3, width=20), clusters(1, 400, 0.3, width=20)
    rows, hot = train.rows_ND.numpy(), np.eye(5)[train.labels_N.numpy() // 2]
    weight, first, second = np.zeros((3, 5, 20))
    for step in range(1, 301):
        odds = np.exp(rows @ weight.T)
        gradient = (odds / odds.sum(1, keepdims=True) - hot).T @ rows / len(rows)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        weight -= 0.003 * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    expected = ((test.rows_ND.numpy() @ weight.T).argmax(1) * 2 == test.labels_N.numpy()).mean()
    assert values("linear_probe", train, test)["paper"] == pytest.approx(expected, abs=1e-3)


def test_knn_equals_the_slow_form() -> None:
    """20 highest cosines, the commonest class, of equally common ones the lowest."""
    train, test = clusters(0, 40, 0.5), clusters(1, 40, 0.5)
    hits = []
    for row_D, label in zip(test.rows_ND, test.labels_N, strict=True):
        cosines_N = torch.nn.functional.cosine_similarity(row_D[None], train.rows_ND)
        votes = torch.bincount(train.labels_N[cosines_N.argsort(descending=True)[:20]])
        hits.append(int(votes.argmax()) == label)
    assert values("knn", train, test) == {Variant("cosine", k=20): pytest.approx(float(np.mean(hits)), abs=1e-12)}
    few = Labelled(train.rows_ND[:19], train.labels_N[:19])
    assert values("knn", few, test)[Variant("cosine", k=20)].reason == "fewer than 20 train images"


def test_few_shot_draws_m_images_of_each_class_from_train() -> None:
    """With m = all images every draw is the same and equals the full classifiers."""
    train, test = clusters(0, 20, 0.5), clusters(1, 100, 0.5)
    found = METRICS["few_shot"].values(train, test, 0)
    assert found[Variant("nccc", 20)].value == pytest.approx(values("nccc", train, test)["euclidean"], abs=1e-12)
    assert found[Variant("probe", 20)].value == pytest.approx(accuracy(train, test, 1.0), abs=2e-3)
    assert found[Variant("nccc", 20)].std == pytest.approx(0, abs=1e-12)
    assert found[Variant("nccc", 1)].std > found[Variant("nccc", 10)].std > 0
    assert found[Variant("nccc", 1)].value < found[Variant("nccc", 5)].value < found[Variant("nccc", 20)].value
    for m in SHOTS[4:]:
        assert found[Variant("probe", m)].value.reason == "class 0 has only 20 train images"


def test_two_way_few_shot_equals_the_mean_over_separate_pairs() -> None:
    """Ten draws, ordered pairs of classes i != j, scikit-learn's centres of two classes, images of class i."""
    train, test = clusters(0, 20, 0.5), clusters(1, 100, 0.5)
    labels_N, labels_M = train.labels_N.numpy(), test.labels_N.numpy()
    scores = []
    for repeat in range(10):
        drawn_C5 = shuffled_by_class(labels_N, 7, "analysis/few_shot", repeat).reshape(5, 20)[:, :5]
        each = []
        for i, j in permutations(range(5), 2):
            drawn = drawn_C5[[i, j]].ravel()
            model = NearestCentroid().fit(train.rows_ND[drawn], labels_N[drawn])
            of_i = labels_M == 2 * i
            each.append(model.score(test.rows_ND[of_i], labels_M[of_i]))
        scores.append(np.mean(each))
    found = METRICS["few_shot_two_way"].values(train, test, 7)
    assert found[Variant("nccc", 5)] == pytest.approx((np.mean(scores), np.std(scores, ddof=1)), abs=1e-12)
    assert found[Variant("nccc", 5)].value > METRICS["few_shot"].values(train, test, 7)[Variant("nccc", 5)].value
    assert found[Variant("probe", 20)].value == pytest.approx(found[Variant("nccc", 20)].value, abs=0.1)


def test_two_way_equals_few_shot_for_two_classes() -> None:
    """All images in each draw and balanced test classes: the classifiers are equal."""
    train, test = clusters(0, 20, 0.3, classes=2), clusters(1, 100, 0.3, classes=2)
    one, other = (values(name, train, test, 3) for name in ("few_shot", "few_shot_two_way"))
    assert 0.5 < one[Variant("nccc", 5)] < 0.95
    for m in SHOTS[:4]:
        for classifier in ("nccc", "probe"):
            assert other[Variant(classifier, m)] == pytest.approx(one[Variant(classifier, m)], abs=1e-12)
    none = Labelled(test.rows_ND[test.labels_N == 0], test.labels_N[test.labels_N == 0])
    assert values("few_shot_two_way", train, none)[Variant("nccc", 1)].reason == "class 2 has no test images"


def test_few_shot_is_repeatable_and_depends_on_the_seed() -> None:
    """Every epoch and arm must use the same images, so that differences come from the arms."""
    train, test = clusters(0, 20, 0.5), clusters(1, 100, 0.5)
    first, again, other = (METRICS["few_shot"].values(train, test, seed) for seed in (0, 0, 1))
    assert str(first) == str(again)
    assert first[Variant("nccc", 1)] != other[Variant("nccc", 1)]


def test_mean_and_std_of_few_shot_equal_those_of_ten_draws() -> None:
    """Recomputed with scikit-learn from the draws."""
    train, test = clusters(0, 20, 0.5), clusters(1, 100, 0.5)
    labels_N = train.labels_N.numpy()
    scores = []
    for repeat in range(10):
        order_N = shuffled_by_class(labels_N, 7, "analysis/few_shot", repeat)
        assert sorted(order_N) == list(range(100))
        drawn = order_N.reshape(5, 20)[:, :5].ravel()
        assert sorted(labels_N[drawn]) == sorted([0, 2, 4, 6, 8] * 5)
        model = NearestCentroid().fit(train.rows_ND[drawn], labels_N[drawn])
        scores.append(model.score(test.rows_ND, test.labels_N))
    found = METRICS["few_shot"].values(train, test, 7)[Variant("nccc", 5)]
    assert found == pytest.approx((np.mean(scores), np.std(scores, ddof=1)), abs=1e-12)


def test_a_probe_of_one_class_is_undefined() -> None:
    """Otherwise an error of scikit-learn would stop the program."""
    one = Labelled(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(30, dtype=torch.int64))
    probes = ("linear_probe", ("regularised", "paper"))
    for name, details in (probes, ("few_shot", DETAILS), ("few_shot_two_way", DETAILS)):
        found = values(name, one, one)
        assert {found[detail].reason for detail in details} == {"train has fewer than 2 classes"}
