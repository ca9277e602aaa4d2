"""Growth of the gap: known curves are recovered, error estimates are correct, and the better model is named."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import read_table
from coupled.analysis.weights.growth import Fit, fits, growth, write_growth

EPOCHS = np.arange(0.0, 41.0)


def by_model(epochs_T: np.ndarray, gaps_T: np.ndarray) -> dict[str, Fit]:
    return {fit.model: fit for fit in fits(epochs_T, gaps_T)}


@pytest.mark.parametrize("epochs_T", [EPOCHS, 10 * EPOCHS, np.array([0.0, 1, 2, 5, 10, 20, 40])])
def test_the_parameters_of_a_saturating_gap_are_recovered(epochs_T: np.ndarray) -> None:
    """Level .9 is approached by 8 % each epoch; the slope at the start is the product of both."""
    found = by_model(epochs_T, 0.9 * (1 - np.exp(-0.08 * epochs_T)))
    fit = found["saturation"]
    assert (fit.level, fit.rate, fit.slope) == pytest.approx((0.9, 0.08, 0.072), rel=1e-5)
    assert (fit.better, found["exponential"].better) == ("yes", "no")
    assert fit.rmse < 1e-6 < found["exponential"].rmse
    assert fit.aic < found["exponential"].aic
    assert math.isnan(fit.doubling_time)


def test_the_parameters_of_an_exponential_gap_are_recovered() -> None:
    """Doubling every 7 epochs once it is large."""
    rate = math.log(2) / 7
    found = by_model(EPOCHS, 0.01 * (np.exp(rate * EPOCHS) - 1))
    fit = found["exponential"]
    assert (fit.rate, fit.slope, fit.doubling_time) == pytest.approx((rate, 0.01 * rate, 7), rel=1e-5)
    assert (fit.better, found["saturation"].better) == ("yes", "no")
    assert math.isnan(fit.level)


def test_both_models_fit_a_straight_line_with_rate_0() -> None:
    """At rate 0 both models are the line; level and doubling time are very large."""
    found = by_model(EPOCHS, 0.02 * EPOCHS)
    for model in ("exponential", "saturation"):
        assert found[model].slope == pytest.approx(0.02, rel=1e-3)
        assert found[model].rate == pytest.approx(0, abs=1e-4)
    assert found["saturation"].level > 100
    assert found["exponential"].doubling_time > 1e4


def test_a_saturating_gap_has_no_doubling_time() -> None:
    """The exponential ends at the straight line: rate 0, not 1e-27 with errors of 1e+50."""
    fit = by_model(EPOCHS, 0.9 * (1 - np.exp(-0.08 * EPOCHS)))["exponential"]
    assert (fit.rate, fit.doubling_time) == (0, math.inf)
    assert math.isnan(fit.doubling_time_error)


def test_estimated_errors_equal_the_scatter_of_repeated_fits() -> None:
    """Noise of 1 %, drawn 200 times: the fits scatter as their error estimates state."""
    generator = np.random.Generator(np.random.Philox(key=0))
    clean = 0.9 * (1 - np.exp(-0.08 * EPOCHS))
    noise = 0.01 * generator.standard_normal((200, len(EPOCHS)))
    found = [by_model(EPOCHS, clean + each)["saturation"] for each in noise]
    for name in ("slope", "rate", "level"):
        scatter = np.std([getattr(fit, name) for fit in found])
        assert np.mean([getattr(fit, f"{name}_error") for fit in found]) == pytest.approx(scatter, rel=0.15)
    assert np.mean([fit.rmse for fit in found]) == pytest.approx(0.01, rel=0.05)


def test_the_early_doubling_time_uses_the_first_half_only() -> None:
    """The gap doubles every 3 epochs up to .5, then stays; later epochs do not count."""
    gaps_T = np.minimum(0.01 * 2 ** (EPOCHS / 3), 0.5)
    gaps_T[0] = 0
    early = by_model(EPOCHS, gaps_T)["early"]
    assert early.doubling_time == pytest.approx(3, rel=1e-6)
    assert early.rate == pytest.approx(math.log(2) / 3, rel=1e-6)
    assert early.doubling_time_error < 1e-6
    assert early.last_epoch == 14  # .01 x 2^(14/3) is the first above .25
    assert early.points == 14
    assert early.better == ""
    short = by_model(EPOCHS, 1 - np.exp(-EPOCHS))["early"]
    assert short.points == 1
    assert math.isnan(short.doubling_time)


def test_a_twin_or_a_short_run_has_no_growth() -> None:
    """A gap of 0 everywhere has neither slope nor rate; three points do not determine two parameters and an error."""
    assert fits(EPOCHS, np.zeros_like(EPOCHS)) == []
    assert fits(EPOCHS[:3], EPOCHS[:3]) == []


def test_a_gap_that_no_curve_fits_is_a_row_without_numbers() -> None:
    """The gap is 0 for long, then grows: scipy fails on the exponential; the other fits remain."""
    gaps_T = np.array([0.0, 0, 0, 0.7450927899552892])
    found = by_model(np.array([18.0, 100, 367, 398]), gaps_T)
    lost = [fit for fit in found.values() if fit.model != "early" and math.isnan(fit.slope)]
    assert lost
    assert {fit.better for fit in lost} == {"no"}
    assert all(fit.better == "yes" for fit in found.values() if fit.model != "early" and not math.isnan(fit.slope))


def test_fits_use_the_global_gap_of_each_pair(tmp_path: Path) -> None:
    """In whatever order the epochs were measured; rows of layers in the same table are not used."""
    lines = ["epoch,reference,arm,tensor,module,aggregate,gap"]
    for epoch in (5, 0, 1, 4, 2, 3):
        lines += [
            f"{epoch},cl,nscl,,,global,{0.1 * epoch}",
            f"{epoch},cl,nscl,,,mean,{9 - epoch}",
            f"{epoch},cl,nscl,,layer1,global,{9 - epoch}",
            f"{epoch},cl,twin,,,global,0",
        ]
    (tmp_path / "weight_gap.csv").write_text("\n".join([*lines, ""]))
    write_growth(tmp_path / "weight_gap.csv", tmp_path / "weight_gap_growth.csv")
    columns = SCHEMAS["weight_gap_growth.csv"].columns
    header, *rows = (tmp_path / "weight_gap_growth.csv").read_text().splitlines()
    assert tuple(header.split(",")) == columns
    assert [row.split(",")[:3] for row in rows] == [["cl", "nscl", m] for m in ("early", "exponential", "saturation")]
    found = growth(read_table(tmp_path / "weight_gap.csv"))
    pd.testing.assert_frame_equal(found, read_table(tmp_path / "weight_gap_growth.csv"), check_exact=True)
    slope = float(rows[1].split(",")[columns.index("slope")])
    assert slope == pytest.approx(0.1, rel=1e-3)
