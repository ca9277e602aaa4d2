"""Fit exponential and saturating growth to the global weight gap over the epochs.

The bound of arXiv 2510.08852 allows the gap to grow exponentially; measured gaps saturate. Both curves start at gap 0
and have two parameters. They differ in the sign of their curvature:
* exponential: slope (exp(rate t) - 1) / rate, which doubles every ln 2 / rate once it is large;
* saturation: slope (1 - exp(-rate t)) / rate, which approaches the level slope / rate.
`early` is a straight line fitted to the logarithm of the gap, from the first epoch with a gap until the gap first
reaches half of its maximum. Its doubling time describes the initial growth.
"""

import csv
import io
from collections.abc import Callable
from dataclasses import astuple, dataclass
from math import inf, isnan, log, nan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.special import exprel
from scipy.stats import linregress

from coupled.analysis.schemas import SCHEMAS
from coupled.analysis.tables import as_frame, read_newest, whole_encoder
from coupled.monitoring.terminal import counted, say
from coupled.storage.atomic_files import encoded, write_durably

TABLE = "weight_gap_growth.csv"
LEAST = 4  # points that a fit of two parameters with errors needs
STEEPEST = 50.0  # largest exponent of a fit over the whole run
STRAIGHT = 1e-6  # an exponent below this over the whole run is set to 0: the fit is a straight line


@dataclass(frozen=True)
class Fit:
    """The cells of a row after reference and arm; NaN if a number does not apply. Errors are standard errors."""

    model: str
    points: int
    last_epoch: int
    slope: float = nan  # gap per epoch at the start
    slope_error: float = nan
    rate: float = nan  # per epoch
    rate_error: float = nan
    level: float = nan
    level_error: float = nan
    doubling_time: float = nan  # epochs
    doubling_time_error: float = nan
    rmse: float = nan
    aic: float = nan  # Akaike information criterion with Gaussian errors; lower is better
    better: str = ""  # "yes" for the model with the lower aic


def growth(gaps: pd.DataFrame) -> pd.DataFrame:
    """Fit the gap of the whole encoder over the epochs, for each pair of arms with four epochs or more.

    Args:
        gaps: rows of weight_gap.csv, as `Run.weight_gap` returns them.

    Returns:
        The rows of weight_gap_growth.csv with its columns (see `schemas.SCHEMAS`): `early`, `exponential` and
        `saturation` of each pair.

    Example:
        >>> growth(run.weight_gap()).query("better == 'yes'")[["arm", "model", "rate"]]  # doctest: +SKIP
    """
    return as_frame([row for rows in _rows_of_pairs(gaps) for row in rows], TABLE)


def write_growth(gaps: Path, path: Path) -> None:
    """Write the fits to weight_gap.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SCHEMAS[TABLE].columns)
    pairs = _rows_of_pairs(read_newest(gaps, "gap"))
    for row in (row for rows in pairs for row in rows):
        writer.writerow("" if isinstance(cell, float) and isnan(cell) else cell for cell in row)
    write_durably(path, encoded(text.getvalue()))
    say(f"{path}: growth of {counted(len(pairs), 'pair')}")


def _rows_of_pairs(gaps: pd.DataFrame) -> list[list[tuple[object, ...]]]:
    """Return the rows of each pair; a pair with fewer than 4 epochs has none."""
    table = whole_encoder(gaps, "global")
    table = table[table["gap"].notna()]
    found = []
    for pair, rows in table.groupby(["reference", "arm"], sort=False):
        rows = rows.sort_values("epoch")
        of_pair = fits(rows["epoch"].to_numpy(float), rows["gap"].to_numpy(float))
        found.append([(*pair, *astuple(fit)) for fit in of_pair])
    return found


def fits(epochs_T: NDArray[np.float64], gaps_T: NDArray[np.float64]) -> list[Fit]:
    """Return the fits `early`, `exponential` and `saturation`; [] for fewer than 4 epochs or a gap that is always 0."""
    if len(epochs_T) < LEAST or not gaps_T.any():
        return []
    curved = [_curved(name, sign, epochs_T, gaps_T) for name, sign in (("exponential", 1), ("saturation", -1))]
    best = min((fit.aic for fit in curved if not isnan(fit.aic)), default=nan)
    marked = [Fit(**{**vars(fit), "better": "yes" if fit.aic == best else "no"}) for fit in curved]
    return [_early(epochs_T, gaps_T), *marked]


def _curved(name: str, sign: int, epochs_T: NDArray[np.float64], gaps_T: NDArray[np.float64]) -> Fit:
    """Fit slope and rate >= 0 by least squares, on epochs and gaps scaled to at most 1."""
    last, top = float(epochs_T[-1]), float(gaps_T.max())

    def curve(t_T: NDArray[np.float64], slope: float, rate: float) -> NDArray[np.float64]:
        curved: NDArray[np.float64] = slope * t_T * exprel(sign * rate * t_T)  # exprel(x) is (exp(x) - 1) / x
        return curved

    try:
        (slope, rate), covariance = curve_fit(
            curve, epochs_T / last, gaps_T / top, p0=(1.0, 1.0), bounds=([0, 0], [inf, STEEPEST]), method="trf"
        )
    except RuntimeError:  # the fit does not converge, for example for a gap that is 0 in many epochs
        return Fit(name, len(epochs_T), int(last))
    residuals_T = top * curve(epochs_T / last, slope, rate) - gaps_T
    squares = float(residuals_T @ residuals_T)
    n = len(epochs_T)
    errors = np.sqrt(np.diag(covariance))
    rate = rate if rate > STRAIGHT else 0.0
    level, level_error = _ratio(slope, rate, covariance, lambda a, b: a / b) if sign < 0 else (nan, nan)
    doubling, doubling_error = _ratio(slope, rate, covariance, lambda _, b: log(2) / b) if sign > 0 else (nan, nan)
    return Fit(
        model=name,
        points=n,
        last_epoch=int(last),
        slope=slope * top / last,
        slope_error=float(errors[0]) * top / last,
        rate=rate / last,
        rate_error=float(errors[1]) / last,
        level=level * top,
        level_error=level_error * top,
        doubling_time=doubling * last,
        doubling_time_error=doubling_error * last,
        rmse=sqrt(squares / n),
        aic=n * log(squares / n) + 4 if squares > 0 else -inf,
    )


def _ratio(
    slope: float, rate: float, covariance: NDArray[np.float64], of: Callable[[float, float], float]
) -> tuple[float, float]:
    """Return a function of slope and rate and its first-order standard error; (inf, NaN) at rate 0."""
    if rate == 0:
        return inf, nan
    step = 1e-6
    gradient = np.array(
        [
            (of(slope + step * slope, rate) - of(slope - step * slope, rate)) / (2 * step * slope),
            (of(slope, rate * (1 + step)) - of(slope, rate * (1 - step))) / (2 * step * rate),
        ]
    )
    return of(slope, rate), float(np.sqrt(gradient @ covariance @ gradient))


def _early(epochs_T: NDArray[np.float64], gaps_T: NDArray[np.float64]) -> Fit:
    """Fit a line to the log gap of the early phase; without numbers if that phase has fewer than 3 epochs."""
    first = int(np.argmax(gaps_T > 0))
    end = int(np.argmax(gaps_T >= gaps_T.max() / 2)) + 1
    t_T, log_T = epochs_T[first:end], np.log(gaps_T[first:end])
    if len(t_T) < 3:
        return Fit("early", len(t_T), int(epochs_T[end - 1]))
    line = linregress(t_T, log_T)
    doubling = log(2) / line.slope if line.slope else inf
    return Fit(
        "early",
        len(t_T),
        int(t_T[-1]),
        rate=float(line.slope),
        rate_error=float(line.stderr),
        doubling_time=float(doubling),
        doubling_time_error=float(abs(doubling * line.stderr / line.slope)) if line.slope else inf,
        rmse=float(np.sqrt(np.mean((np.exp(line.intercept + line.slope * t_T) - gaps_T[first:end]) ** 2))),
    )
