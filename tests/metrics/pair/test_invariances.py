"""Each pair metric has exactly the invariances that it declares.

Shape letters: n images, D, E widths.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.feature_changes import CHANGES
from support.pair_definitions import related, streamed

from coupled.config.metric_registry import find_pair_metrics, pair_metric_names
from coupled.metrics.pair import INVARIANCES

METRICS = {metric.name: metric for metric in find_pair_metrics(pair_metric_names())}


def changed(name: str, change: str, seed: int, n: int, width: int) -> tuple[float, float, float]:
    """Return the metric before and after a change of the first and of the second representation."""
    x_nD, y_nE = related(seed, n, width, 6, mean=0.5)
    other_nD, other_nE = (CHANGES[change](rows, torch.Generator().manual_seed(seed + 1)) for rows in (x_nD, y_nE))
    return streamed(name, x_nD, y_nE), streamed(name, other_nD, y_nE), streamed(name, x_nD, other_nE)


@pytest.mark.parametrize(
    ("name", "change"), [(name, each) for name in METRICS for each in sorted(METRICS[name].invariances)]
)
@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 2**31), n=st.integers(20, 40), width=st.integers(3, 12))
def test_a_declared_invariance_holds(name: str, change: str, seed: int, n: int, width: int) -> None:
    """A reader takes a drop of the value for a change of geometry."""
    before, *after = changed(name, change, seed, n, width)
    assert after == pytest.approx([before, before], abs=1e-11)


@pytest.mark.parametrize(("name", "change"), [(n, each) for n in METRICS for each in sorted(INVARIANCES)])
def test_an_undeclared_invariance_does_not_hold(name: str, change: str) -> None:
    """A metric with more invariances than declared sees less than its reader thinks."""
    if change not in METRICS[name].invariances:
        before, *after = changed(name, change, 3, 40, 9)
        assert max(abs(each - before) for each in after) > 1e-3


@pytest.mark.parametrize("name", METRICS)
def test_more_similar_representations_score_in_the_declared_direction(name: str) -> None:
    """With less and less noise in one representation, the value must change monotonically."""
    x_nD, noise_nD = (related(seed, 200, 12, 1)[0] for seed in (0, 1))
    values = [streamed(name, x_nD, x_nD + share * noise_nD) for share in (4.0, 2.0, 1.0, 0.5, 0.0)]
    assert METRICS[name].direction in ("higher", "lower")
    assert values == sorted(values, reverse=METRICS[name].direction == "lower")
    low, high = METRICS[name].range
    assert values[-1] == (high if METRICS[name].direction == "higher" else low)


def test_every_declared_invariance_is_a_known_one() -> None:
    """A misspelt one would not be tested."""
    assert set(CHANGES) == set(INVARIANCES)
    for metric in METRICS.values():
        assert metric.invariances <= set(INVARIANCES)
        assert (metric.subset is None) == bool(metric.transform)
