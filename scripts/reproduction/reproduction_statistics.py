"""Statistics over seeds, and the form of an answer: what all claims of docs/reproduction.md share.

All functions take the values of every seed (reproduction_values.py), or numbers from them. With three seeds a 95 %
interval is wide: a half-width of 2.5 standard deviations.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import ndtr

LEVEL = 0.95
POINTS = 2000  # of the integral over the standard deviation


class Answer(NamedTuple):
    """What the values of a claim show: one line for the summary, sentences, and tables of text with a caption each."""

    summary: str
    sentences: Sequence[str]
    tables: Mapping[str, pd.DataFrame]


class Claim(NamedTuple):
    """A section of the page: its sweep, and the functions that compute the answer and the figure from the values."""

    title: str
    sweep: str
    answer: Callable[[pd.DataFrame], Answer]
    draw: Callable[[pd.DataFrame], Figure] | None = None


class Paired(NamedTuple):
    """Differences within a seed: mean, interval of Student's t, effect size mean / sd and its interval, seeds.

    Intervals are NaN for one seed; effect sizes also if all differences are equal.
    """

    mean: float
    low: float
    high: float
    effect: float
    effect_low: float
    effect_high: float
    seeds: int

    def direction(self) -> int:
        """1 or -1 if the interval is above or below 0; else 0, also for one seed."""
        return int(self.low > 0) - int(self.high < 0)

    def text(self) -> str:
        """The mean with its 95 % interval, for a sentence."""
        return f"{self.mean:+.3f} ({interval(self.low, self.high)})"


def paired(differences: Sequence[float]) -> Paired:
    """Mean and interval of differences within a seed.

    Example:
        >>> paired([0.1, 0.2, 0.3]).text()
        '+0.200 (-0.048 to 0.448)'
    """
    values = np.asarray(differences, float)
    count, mean, nan = len(values), float(values.mean()), float("nan")
    if count < 2:
        return Paired(mean, nan, nan, nan, nan, nan, count)
    sd = float(values.std(ddof=1))
    if sd < 1e-12:
        return Paired(mean, mean, mean, nan, nan, nan, count)
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * sd / np.sqrt(count)
    low, high = effect_interval(mean / sd, count)
    return Paired(mean, mean - half, mean + half, mean / sd, low, high, count)


def effect_interval(effect: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a standardised mean difference (mean / sd of `count` differences).

    The bounds are the noncentralities of the noncentral t distribution, divided by sqrt(count), for which the observed
    t is the 97.5 % and the 2.5 % quantile. Source: Cumming and Finch
    2001, Educational and Psychological Measurement 61.
    """
    t, root = effect * np.sqrt(count), np.sqrt(count)
    scales = _scales(count)

    def excess(noncentrality: float, share: float) -> float:
        return float(ndtr(t * scales - noncentrality).mean() - share)

    ends = (t * scales).min() - 9, (t * scales).max() + 9
    low, high = (optimize.brentq(excess, *ends, args=(share,)) / root for share in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return float(low), float(high)


@cache
def _scales(count: int) -> NDArray[np.float64]:
    """Quantiles of sd / sigma, equally likely; an average over them replaces SciPy's nct, which fails for large t."""
    shares = (np.arange(POINTS) + 0.5) / POINTS
    return np.sqrt(stats.chi2.ppf(shares, count - 1) / (count - 1))


def over_seeds(values: pd.DataFrame, case: Sequence[str]) -> pd.DataFrame:
    """Mean, standard deviation (n - 1) and number of seeds of each case and score."""
    groups = values.groupby([*case, "score"], sort=False, dropna=False)["value"]
    return groups.agg(mean="mean", sd="std", seeds="count").reset_index()


def by_seed(values: pd.DataFrame, score: str, column: str) -> pd.DataFrame:
    """Values of a score, with one row per seed and one column per case."""
    return values[values["score"] == score].pivot_table(index="seed", columns=column, values="value")


def last(values: pd.DataFrame) -> pd.DataFrame:
    """The values of the last epoch of each run."""
    if "epochs" in values:  # a sweep over the length of training
        return values[values["epoch"] == values["epochs"]]
    return values[values["epoch"] == values["epoch"].max()]


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row per case, one column per score with "mean +- sd" in its cells, and the number of seeds.

    `table` is a result of `over_seeds`. Rows are sorted: numbers by value, names in the order of their first row.
    """
    case = [str(column) for column in table if column not in ("score", "mean", "sd", "seeds")]
    for name in case:
        if not pd.api.types.is_numeric_dtype(table[name]):
            table = table.assign(**{name: pd.Categorical(table[name], list(dict.fromkeys(table[name])), ordered=True)})
    table = table.assign(cell=[*map(cell, table["mean"], table["sd"])])
    scores = list(dict.fromkeys(table["score"]))
    rows = table.pivot(index=case, columns="score", values="cell")[scores]
    counts = table.groupby(case, observed=True)["seeds"].max().astype(str)
    return rows.assign(seeds=counts).reset_index().astype(object).fillna("").astype(str)


def cell(mean: float, sd: float) -> str:
    """The text "mean +- sd", with two significant digits of the standard deviation; the mean alone if that is 0.

    Example:
        >>> cell(0.8123, 0.0402), cell(67.71, 3.92), cell(2.127, 0.0)
        ('0.812 +- 0.040', '67.7 +- 3.9', '2.13')
    """
    if pd.isna(mean):
        return ""
    if pd.isna(sd) or sd < 1e-12:
        return f"{mean:.3g}"
    digits = min(max(0, 1 - int(np.floor(np.log10(sd)))), 5)
    text = f"{sd:.{digits}f}"
    return f"{mean:.{digits}f}" + (f" +- {text}" if float(text) else "")


def interval(low: float, high: float, digits: int = 3) -> str:
    """The text "low to high", or "undefined"."""
    return "undefined" if pd.isna(low) else f"{low:.{digits}f} to {high:.{digits}f}"


def difference_row(differences: "pd.Series[float]") -> dict[str, str]:
    """The columns of a table of differences within a seed, which every claim uses."""
    each = paired(list(differences))
    effect = "undefined" if pd.isna(each.effect) else f"{each.effect:.1f}"
    return {
        "difference": f"{each.mean:.3f}",
        "95 % interval": interval(each.low, each.high),
        "difference / sd": effect,
        "its 95 % interval": interval(each.effect_low, each.effect_high, 1),
        "each seed": ", ".join(f"{value:.3f}" for value in differences),
    }


def captioned(caption: str, table: pd.DataFrame) -> str:
    """The table as a Markdown table, after its caption."""
    return (f"{caption}:\n\n" if caption else "") + markdown(table)


def markdown(table: pd.DataFrame) -> str:
    """The table as a Markdown table."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
