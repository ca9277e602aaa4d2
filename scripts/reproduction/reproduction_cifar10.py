"""Compute the section "Real images" of docs/reproduction.md from the values of every seed and epoch.

`values` selects them from the rows of the sweep `cifar10` (coupled.sweep.tables.collect); they are kept as
docs/reproduction/cifar10.csv with the columns seed, epoch, arm, score, value. Every table and figure of the section is
computed from this file alone. All scores compare layer h of an arm, on test images, or its weights, with arm `cl`.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from reproduction_claims import GLOBAL, SCORES, scores
from scipy import stats

from coupled.analysis.plots.drawing import over_epochs
from coupled.analysis.selections.styles import arm_styles

SWEEP = "cifar10"
ARMS = ("nscl", "scl", "ce")
FLOOR, CEILING = "cl_moved", "cl_other"  # a weight moved by a rounding error; own initialisation, order, augmentation
NAMES = (*SCORES, GLOBAL)
SIMILARITIES = ("CKA", "RSA")  # the larger, the nearer; of the gaps the smaller
QUALITY = {"nccc": "class centres", "linear_probe": "linear probe"}


def values(rows: pd.DataFrame) -> pd.DataFrame:
    """The values of all seeds, epochs, arms and scores, from the rows of the sweep."""
    quality = rows[(rows["table"] == "quality") & rows["metric"].isin(QUALITY) & (rows["module"] == "h")]
    quality = quality[quality["variant"].isna() | quality["variant"].eq("euclidean")]
    told = pd.concat([scores(rows, NAMES), quality.assign(score=quality["metric"].map(QUALITY))])
    return told[["seed", "epoch", "arm", "score", "value"]].sort_values(["score", "arm", "seed", "epoch"])


def wide(told: pd.DataFrame, score: str) -> pd.DataFrame:
    """One row per seed and epoch after the start, one column per arm."""
    chosen = told[(told["score"] == score) & (told["epoch"] > 0)]
    return chosen.pivot_table(index=["seed", "epoch"], columns="arm", values="value")


def advantage(told: pd.DataFrame, score: str) -> pd.DataFrame:
    """How much nearer `nscl` is to `cl` than `scl` and than `ce`, per seed and epoch; negative: it is farther away."""
    table = wide(told, score)
    sign = 1 if score in SIMILARITIES else -1
    return pd.DataFrame({arm: sign * (table["nscl"] - table[arm]) for arm in ARMS[1:]})


def nearest(told: pd.DataFrame) -> pd.DataFrame:
    """In how many epochs and seeds `nscl` is nearest to `cl`, and the epochs in which it is not in every seed."""
    rows = []
    for score in NAMES:
        first = (advantage(told, score) > 0).all(axis=1)
        missed = first[~first].index.unique("epoch").sort_values()
        seeds = first.groupby("seed").all()
        rows.append(
            {
                "score": score,
                "NSCL nearest, epochs x seeds": f"{int(first.sum())} of {len(first)}",
                "seeds in which in every epoch": f"{int(seeds.sum())} of {len(seeds)}",
                "epochs in which not in every seed": ", ".join(map(str, missed)) or "none",
            }
        )
    return pd.DataFrame(rows)


def paired(told: pd.DataFrame) -> pd.DataFrame:
    """Differences within a seed after the last epoch: mean, 95 % interval of Student's t, and effect size."""
    rows = []
    for score in NAMES:
        differences = advantage(told, score)
        final = differences.xs(told["epoch"].max(), level="epoch")
        for arm in ARMS[1:]:
            each = final[arm]
            mean, sd, n = each.mean(), each.std(), len(each)
            half = stats.t.ppf(0.975, n - 1) * sd / np.sqrt(n) if n > 1 else np.nan
            rows.append(
                {
                    "score": score,
                    "NSCL nearer than": arm,
                    "difference": f"{mean:.3f}",
                    "95 % interval": "undefined" if n < 2 else f"{mean - half:.3f} to {mean + half:.3f}",
                    "difference / sd": "undefined" if n < 2 or sd == 0 else f"{mean / sd:.1f}",
                    "each seed": ", ".join(f"{value:.3f}" for value in each),
                }
            )
    return pd.DataFrame(rows)


def last(told: pd.DataFrame) -> pd.DataFrame:
    """Every arm after the last epoch: mean +- standard deviation over the seeds."""
    final = told[told["epoch"] == told["epoch"].max()]
    groups = final.groupby(["arm", "score"])["value"].agg(["mean", "std", "count"])
    cells = groups.apply(lambda g: f"{g['mean']:.3f}" + (f" +- {g['std']:.3f}" if g["count"] > 1 else ""), axis=1)
    table = cells.unstack("score")
    order = [arm for arm in ("cl", FLOOR, *ARMS, CEILING) if arm in table.index]
    columns = [name for name in (*NAMES, *QUALITY.values()) if name in table]
    counts = final.groupby("arm")["seed"].nunique()
    return table.loc[order, columns].assign(seeds=counts[order].astype(str)).fillna("").reset_index()


def between(told: pd.DataFrame) -> pd.DataFrame:
    """Where each arm lies between the floor (0) and the ceiling (1) after the last epoch, per seed and on average."""
    rows = []
    for score in NAMES:
        table = wide(told, score)
        final = table.xs(table.index.get_level_values("epoch").max(), level="epoch")
        for arm in ARMS:
            share = (final[arm] - final[FLOOR]) / (final[CEILING] - final[FLOOR])
            rows.append(
                {
                    "score": score,
                    "arm": arm,
                    "share of the way from floor to ceiling": f"{share.mean():.2f}",
                    "each seed": ", ".join(f"{value:.2f}" for value in share),
                }
            )
    return pd.DataFrame(rows)


def draw(told: pd.DataFrame) -> Figure:
    """The four scores over the epochs: a thin line for every seed, a thick line for their mean."""
    figure = Figure(figsize=(9, 6.8), layout="constrained")
    words = {FLOOR: "CL, one weight moved by a rounding error (floor)", CEILING: "CL, nothing shared (ceiling)"}
    styles = {arm: {"color": style.color, "ls": "-"} for arm, style in arm_styles(["cl", *ARMS]).items()}
    styles |= {FLOOR: {"color": "0.45", "ls": ":"}, CEILING: {"color": "0.45", "ls": "--"}}
    for axes, score in zip(figure.subplots(2, 2, sharex=True).flat, NAMES, strict=True):
        table = wide(told, score)
        for arm in (*ARMS, FLOOR, CEILING):
            for _, line in table[arm].groupby("seed"):
                axes.plot(line.index.get_level_values("epoch"), line, lw=0.6, alpha=0.6, **styles[arm])
            mean = table[arm].groupby("epoch").mean()
            axes.plot(mean.index, mean, lw=2, label=words.get(arm, arm.upper()), **styles[arm])
        axes.set_ylim(*((min(0, table.min().min()), 1) if score in SIMILARITIES else (0, None)))
        axes.set_title(f"{score} with CL" if score in SIMILARITIES else f"{score} to CL")
        over_epochs(axes)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    seeds = told["seed"].nunique()
    figure.suptitle(f"Distance from CL on CIFAR-10 (JPEG); layer h, test images; n = {seeds} seeds, a thin line each")
    return figure


TABLES: Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "last": last,
    "nearest": nearest,
    "paired": paired,
    "between": between,
}
