"""Gradient descent on similarities: its gradient, and the a-priori bound that is proved for it."""

from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from coupled import metrics
from coupled.analysis import similarity_descent
from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.similarity_descent import main
from coupled.analysis.tables import read_table
from coupled.analysis.theory.bound_formulas import log_similarity_distance
from coupled.analysis.theory.descent import Array, Labels, centred, correlation, descend, gradient, off_diagonal


def points(seed: int, count: int, width: int = 5) -> Array:
    drawn = np.random.Generator(np.random.Philox(seed)).normal(size=(count, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def loss(similarities: Array, labels: Labels, temperature: float, same_class: bool) -> float:
    """The mean over the anchors by a double loop."""
    total = 0.0
    for i in range(len(labels)):
        negatives = [j for j in range(len(labels)) if j != i and (same_class or labels[i] != labels[j])]
        total += log(sum(exp(similarities[i, j] / temperature) for j in negatives))
    return total / len(labels)


@pytest.mark.parametrize("same_class", [True, False])
def test_the_gradient_is_that_of_the_loss(same_class: bool) -> None:
    """By finite differences along each symmetric direction."""
    labels, z = np.array([0, 0, 1, 2, 1, 0]), points(1, 6)
    similarities = z @ z.T
    found = gradient(similarities, labels, 0.3, same_class=same_class)
    for i, j in np.ndindex(6, 6):
        step = np.zeros((6, 6))
        step[i, j] += 5e-7
        step[j, i] += 5e-7
        up, down = (loss(similarities + sign * step, labels, 0.3, same_class) for sign in (1, -1))
        assert (up - down) / 2e-6 == pytest.approx(found[i, j], abs=1e-6)


def test_scores_of_similarities_equal_the_metrics_of_features() -> None:
    """CKA and RSA of the package, for unit vectors."""
    one, other = points(2, 30), points(3, 30)
    grams = one @ one.T, other @ other.T
    assert correlation(*map(centred, grams)) == pytest.approx(metrics.cka(one, other), abs=1e-6)
    assert correlation(*map(off_diagonal, grams)) == pytest.approx(metrics.rsa(one, other), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.2, 0.5, 1.0])
def test_the_distance_stays_below_the_bound_of_the_batches(temperature: float) -> None:
    """With the true largest class of a batch instead of the probable one; a large rate makes clipping happen."""
    labels, z, batch, lr = np.arange(60) % 6, points(4, 60), 24, 30.0
    state = np.random.Generator(np.random.Philox(5))
    again = np.random.Generator(np.random.Philox(5))
    most = max(np.bincount(labels[again.permutation(60)[:batch]]).max() for _ in range(40))
    log_gap = log(2 * most / (batch - most)) + 2 / temperature
    run = descend(z @ z.T, labels, batch=batch, steps=40, lr=lr, temperature=temperature, generator=state)
    distances = []
    for step, (cl, nscl) in enumerate(run):
        distances.append(np.linalg.norm(cl - nscl))
        if step:
            assert log(distances[-1]) <= log_similarity_distance(lr * step, batch, temperature, log_gap)
        assert np.array_equal(cl, cl.T)
        assert max(np.abs(cl).max(), np.abs(nscl).max()) <= 1 + 1e-12
    assert distances[0] == 0 < distances[-1]


def test_a_step_obeys_the_inequality_of_the_gradients() -> None:
    """||G_CL - G_NSCL|| <= Delta / (tau sqrt B) + ||Sigma_CL - Sigma_NSCL|| / (2 tau^2 B), at unrelated matrices."""
    labels = np.arange(24) % 6
    for seed, temperature in enumerate((0.3, 1.0, 3.0)):
        one, other = (points(10 + 2 * seed + k, 24, 3) for k in (0, 1))
        cl, nscl = one @ one.T, other @ other.T
        found = gradient(cl, labels, temperature, same_class=True) - gradient(
            nscl, labels, temperature, same_class=False
        )
        delta = 2 * exp(2 / temperature) * 4 / 20
        limit = delta / (temperature * 24**0.5) + np.linalg.norm(cl - nscl) / (2 * temperature**2 * 24)
        assert np.linalg.norm(found) <= limit


def test_the_program_finds_no_violated_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some bounds are not vacuous and all hold. The figure is drawn; saving it takes too long."""
    curves: list[int] = []

    def record(figure: Figure, path: Path) -> list[Path]:
        curves.extend(len(axes.lines) for axes in figure.axes)
        return [path]

    monkeypatch.setattr(similarity_descent, "save", record)
    command = ["--num-images", "128", "--batch-size", "96", "--steps", "20", "--temperatures", "0.1", "1"]
    assert main([*command, "--output", str(tmp_path)]) == 0
    assert "0 violated" in capsys.readouterr().out
    path = tmp_path / "similarity_descent.csv"
    rows = read_table(path, SCHEMAS[path.name].columns)
    assert tuple(rows) == SCHEMAS[path.name].columns
    assert (rows["holds"] == "yes").all()
    assert set(rows["vacuous"]) == {"yes", "no"}
    np.testing.assert_allclose(rows[rows["step"] == 0]["measured"], 1, atol=1e-12)
    assert curves == [4, 4, 4]  # measured and bound at two temperatures


@pytest.mark.parametrize(
    ("words", "part"), [(["--batch-size", "999"], "--batch-size: got 999"), (["--classes", "1"], "--classes: got 1")]
)
def test_wrong_numbers_are_reported(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"coupled similarity-descent: {part}")
