"""Statistics of three seeds and the rounding of printed numbers, with the standard library only."""

import math
import statistics
from collections.abc import Mapping, Sequence

T = 4.302652729749464  # 97.5 % quantile of Student's t with two degrees of freedom: three seeds


def half_width(differences: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean, of three seeds."""
    assert len(differences) == 3
    return T * statistics.stdev(differences) / math.sqrt(3)


def intervals(row: Mapping[str, str], differences: Sequence[float]) -> dict[str, bool]:
    """Whether effect size and intervals are those of the differences, of one seed or three."""
    columns = ("95 % interval", "difference / sd", "its 95 % interval")
    if len(differences) == 1:
        return {column: row[column] == "undefined" for column in columns}
    mean, half = statistics.fmean(differences), half_width(differences)
    effect = mean / statistics.stdev(differences)
    (low, high), ends = ([*map(float, row[column].split(" to "))] for column in columns[::2])
    at = [[noncentral_t(effect, end + step) for step in (-0.051, 0.051)] for end in ends]
    inside = all(before >= share >= after for (before, after), share in zip(at, (0.975, 0.025), strict=True))
    means = abs(low - mean + half) < 6e-4 and abs(high - mean - half) < 6e-4
    return dict(zip(columns, (means, rounds(row[columns[1]], effect), inside), strict=True))


def noncentral_t(effect: float, true: float) -> float:
    """The probability of at most this mean / sd of three values, whose true mean / sd is `true`.

    With two degrees of freedom chi^2 / 2 is exponential, so the integral has a closed form.
    """
    t, d, normal = effect * math.sqrt(3), true * math.sqrt(3), statistics.NormalDist()
    root = math.sqrt(t * t + 2)
    return normal.cdf(-d) + t / root * math.exp(-((d / root) ** 2)) * normal.cdf(t * d / root)


def rounds_each(text: str, values: Sequence[float]) -> bool:
    """Whether the text lists the values, rounded."""
    each = text.split(", ")
    return len(each) == len(values) and all(map(rounds, each, values))


def rounds(text: str, value: float) -> bool:
    """Whether the text is the value, rounded to its decimals."""
    decimals = len(text.partition(".")[2])
    return abs(float(text) - value) <= 0.5 * 10**-decimals + 1e-9


def rounds_mean(text: str, values: Sequence[float]) -> bool:
    """Whether the text is mean and standard deviation of the values; the mean alone if they do not differ."""
    mean, _, sd = text.partition(" +- ")
    if not values or not mean:
        return not values and not mean
    if sd:
        return rounds(mean, statistics.fmean(values)) and rounds(sd, statistics.stdev(values))
    alike = max(values) - min(values) < 2e-5
    return alike and abs(float(mean) - statistics.fmean(values)) <= 0.005 * abs(float(mean)) + 1e-9
