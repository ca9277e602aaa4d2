"""Each value of an arm metric has exactly the invariances that its file declares.

Shape letters: N images, M of them for training, D width, V views.
"""

from collections.abc import Callable
from functools import cache
from math import isnan

import pytest
import torch
from support.feature_changes import CHANGES, draw
from torch import Tensor

from coupled.config.metric_registry import arm_metric_names, find_arm_metrics
from coupled.metrics.arm import INVARIANCES, Labelled, linear_probe

METRICS = {metric.name: metric for metric in find_arm_metrics(arm_metric_names())}
VALUES = [(name, value) for name, metric in METRICS.items() for value in metric.invariances]
SIZES = torch.tensor([4, 6, 8, 8, 11, 11])  # of the classes of train; few_shot then has 1 shot only and is fast
M, N = 48, 288


@pytest.fixture(autouse=True)
def fast_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Select from two strengths: a probe with little regularisation takes long to fit."""
    monkeypatch.setattr(linear_probe, "STRENGTHS", (0.03, 1.0))


@cache
def measured(name: str, change: str, seed: int = 0) -> dict[str, list[float]]:
    """Return values and standard deviations after a change, or none for "", by the name of the variant."""
    generator = torch.Generator().manual_seed(seed)
    labels_N = torch.cat([torch.arange(6).repeat_interleave(SIZES), torch.arange(N - M) % 6])
    rows_ND = 1 + 1.2 * draw(6, 7, generator)[labels_N] + draw(N, 7, generator)
    if change in CHANGES:
        rows_ND = CHANGES[change](rows_ND, generator)

    def order(count: int) -> Tensor:
        return torch.randperm(count, generator=generator) if change == "image_order" else torch.arange(count)

    found: dict[str, list[float]] = {}
    for variant, each in METRICS[name].measured(*inputs(METRICS[name].sees, rows_ND, labels_N, order)).items():
        found.setdefault(variant.name, []).extend(number for number in each if not isnan(number))
    return found


def inputs(sees: str, rows_ND: Tensor, labels_N: Tensor, order: Callable[[int], Tensor]) -> tuple[object, ...]:
    """Return the rows in this order as the input of a kind of metric."""
    if sees == "views":
        return (rows_ND.view(4, N // 4, -1)[:, order(N // 4)],)
    if sees != "classifier":
        order_N = order(N)
        return (Labelled(rows_ND[order_N], labels_N[order_N]),)
    train_M, test_K = order(M), M + order(N - M)
    return Labelled(rows_ND[train_M], labels_N[train_M]), Labelled(rows_ND[test_K], labels_N[test_K]), 0


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_a_declared_invariance_holds(name: str, value: str) -> None:
    """A reader takes a drop of the value for a change of geometry."""
    for change in METRICS[name].invariances[value]:
        before = measured(name, "")[value]
        assert before
        assert measured(name, change)[value] == pytest.approx(before, abs=1e-6), change


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_an_undeclared_invariance_does_not_hold(name: str, value: str) -> None:
    """A metric with more invariances than declared sees less than its reader thinks."""
    for change in INVARIANCES.keys() - METRICS[name].invariances[value]:
        pairs = ((measured(name, "", seed)[value], measured(name, change, seed)[value]) for seed in range(5))
        assert any(after != pytest.approx(before, abs=1e-3) for before, after in pairs), change


def test_every_declared_invariance_is_a_known_one() -> None:
    """A misspelt one would not be tested."""
    assert {*CHANGES, "image_order"} == set(INVARIANCES)
    for name, value in VALUES:
        assert METRICS[name].invariances[value] <= set(INVARIANCES)
        assert METRICS[name].invariances.keys() == {variant.name for variant in METRICS[name].variants}
