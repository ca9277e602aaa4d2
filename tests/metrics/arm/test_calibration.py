"""Metrics of predicted probabilities: against slow loops, torch and scikit-learn.

Shape letters: N images, C classes.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, top_k_accuracy_score

from coupled.metrics import ece, linear_probe, nll, probe_calibration, top1, top5
from coupled.metrics.arm import Labelled
from coupled.metrics.arm._logits import reliability
from coupled.metrics.arm._probes import fitted
from coupled.metrics.undefined import Undefined


def some(seed: int, images: int = 200, classes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Logits that know something of the labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, images)
    return generator.normal(size=(images, classes)) + 2 * np.eye(classes)[labels], labels


def slow_ece(probabilities: Sequence[np.ndarray], labels: Sequence[int], bins: int) -> float:
    """Image by image: bin k has the confidences in ((k - 1) / bins, k / bins]."""
    total = 0.0
    for k in range(bins):
        inside = [(p.max(), p.argmax() == y) for p, y in zip(probabilities, labels, strict=True)]
        inside = [each for each in inside if k / bins < each[0] <= (k + 1) / bins]
        if inside:
            confidence, accuracy = np.mean([c for c, _ in inside]), np.mean([hit for _, hit in inside])
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("seed", range(5))
def test_values_of_logits_equal_slow_forms_and_libraries(seed: int) -> None:
    """A wrong bin or a wrong sign would be a wrong number in every table."""
    logits, labels = some(seed)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert top1(logits, labels) == pytest.approx(np.mean(logits.argmax(1) == labels), abs=1e-12)
    assert top5(logits, labels) == pytest.approx(top_k_accuracy_score(labels, logits, k=5), abs=1e-12)
    assert nll(logits, labels) == pytest.approx(log_loss(labels, probabilities), abs=1e-10)
    cross_entropy = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))
    assert nll(logits, labels) == pytest.approx(float(cross_entropy), abs=1e-12)
    for bins in (1, 10, 15):
        assert ece(logits, labels, bins=bins) == pytest.approx(slow_ece(probabilities, labels, bins), abs=1e-12)
    assert ece(logits, labels) == ece(logits, labels, bins=15)


def test_the_reliability_curve_equals_scikit_learn() -> None:
    """Accuracy and mean confidence of the bins that have images; their counts add up to all images."""
    logits, labels = some(7, images=500)
    probabilities = torch.tensor(logits).softmax(1)
    curve = reliability(probabilities, torch.tensor(labels))
    hits = (probabilities.argmax(1).numpy() == labels).astype(int)
    accuracies, confidences = calibration_curve(hits, probabilities.max(1).values.numpy(), n_bins=15)
    there = curve.counts_K > 0
    assert curve.accuracies_K[there].tolist() == pytest.approx(accuracies, abs=1e-12)
    assert curve.confidences_K[there].tolist() == pytest.approx(confidences, abs=1e-12)
    assert int(curve.counts_K.sum()) == 500


def test_a_confidence_on_the_edge_belongs_to_the_lower_bin() -> None:
    """Guo et al. write ((m - 1) / M, m / M]; a confidence of 1 is in the last bin."""
    curve = reliability(torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.6, 0.4]]), torch.zeros(3, dtype=torch.int64), bins=2)
    assert curve.counts_K.tolist() == [1, 2]


def test_values_do_not_change_with_a_constant_added_to_the_logits_of_an_image() -> None:
    """Softmax does not see it; float64 keeps the digits of large logits."""
    logits, labels = some(3)
    for metric in (top1, top5, nll, ece):
        assert metric(logits + 1e3, labels) == pytest.approx(metric(logits, labels), abs=1e-10)


def test_ties_are_won_by_the_lowest_class() -> None:
    """As by `argmax`: equal logits must not count as right for every class."""
    assert top1(np.zeros((3, 3)), [0, 1, 2]) == pytest.approx(1 / 3)
    assert top5(np.zeros((10, 10)), np.arange(10)) == 0.5


def test_calibrated_predictions_have_no_error_and_certain_wrong_ones_the_largest() -> None:
    """The two answers that everybody knows."""
    logits = np.log([[0.75, 0.25]] * 4)
    assert ece(logits, [0, 0, 0, 1]) == pytest.approx(0, abs=1e-12)
    assert ece([[100.0, 0.0]] * 4, [1, 1, 1, 1]) == pytest.approx(1, abs=1e-12)


def test_bad_labels_and_few_classes_are_named() -> None:
    """A label that is no column would be read from another row or crash."""
    logits, labels = some(0, classes=5)
    assert isinstance(top5(logits, labels), Undefined)
    assert top5(logits, labels).reason == "fewer than 6 classes"
    with pytest.raises(ValueError, match=r"^labels: got 5; expected 0 to 4, the columns of logits$"):
        top1(logits, labels + 1)
    with pytest.raises(ValueError, match=r"^bins: got 0; expected an integer of at least 1$"):
        ece(logits, labels, bins=0)


def test_probe_calibration_equals_scikit_learn() -> None:
    """Its log loss, and the slow error of its probabilities, with the strength that `linear_probe` selects."""
    generator = np.random.default_rng(0)
    labels, other = 2 * generator.integers(0, 3, 150), 2 * generator.integers(0, 3, 80)
    train, test = (np.eye(6)[each] + generator.normal(size=(len(each), 6)) for each in (labels, other))
    centre = train.mean(0)
    size = np.sqrt(((train - centre) ** 2).mean())
    found = []
    for strength in (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3):
        model = LogisticRegression(C=strength, max_iter=5000, tol=1e-6).fit((train - centre) / size, labels)
        probabilities = model.predict_proba((test - centre) / size)
        found.append((log_loss(other, probabilities), slow_ece(probabilities, other // 2, 15)))
    measured = probe_calibration(train, labels, test, other)
    expected = min(found, key=lambda each: abs(each[0] - measured["nll"]))
    assert tuple(measured.values()) == pytest.approx(expected, abs=1e-6)
    assert 0 < linear_probe(train, labels, test, other) < 1
    assert probe_calibration(train, labels, test, other + 1)["nll"].reason == "class 1 has no train images"
    assert probe_calibration(train, 0 * labels, test, other)["ece"].reason == "train has fewer than 2 classes"


@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e3])
def test_a_probe_is_at_its_optimum(strength: float) -> None:
    """The gradient of log loss plus penalty is 0 up to rounding: an early stop depends on the number of threads."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 2000)
    rows = 0.3 * np.eye(10, 64)[labels] + generator.normal(size=(2000, 64)) * np.geomspace(1, 1e-2, 64)
    train = Labelled(torch.from_numpy(rows), torch.from_numpy(labels))
    model = fitted(train, strength).model
    inputs = (rows - rows.mean(0)) / np.sqrt(((rows - rows.mean(0)) ** 2).mean())
    missed = model.predict_proba(inputs) - np.eye(10)[labels]
    gradient = missed.T @ inputs / 2000 + model.coef_ / (strength * 2000)
    assert np.abs(gradient).max() < 2e-6
    assert np.abs(missed.mean(0)).max() < 2e-6
