"""Distances from CL over the whole of training, against a floor and a ceiling: for every sweep that has the arms.

The functions take the values of a sweep (reproduction_values.py). The floor is a twin of CL with one weight moved by a
rounding error. The ceiling is a twin with its own initialisation, order and augmentation. Epoch 0 is not counted: the
arms are equal there.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from reproduction_statistics import by_seed, difference_row, last, over_seeds, paired
from reproduction_statistics import wide as cells
from reproduction_values import CENTRE, GAP, GLOBAL, PROBE

from coupled.analysis.plots.drawing import over_epochs
from coupled.analysis.selections.styles import arm_styles

ARMS = ("nscl", "scl", "ce")
FLOOR, CEILING = "cl_moved", "cl_other"
SIMILARITIES = ("CKA", "RSA")  # the larger, the nearer; of the gaps the smaller
NAMES = (*SIMILARITIES, GAP, GLOBAL)
QUALITIES = (CENTRE, PROBE)
BESIDE, GREY = {FLOOR: ":", CEILING: "--"}, "0.45"  # lines of figures
LABELS = {FLOOR: "CL, one weight moved by a rounding error (floor)", CEILING: "CL, nothing shared (ceiling)"}


def of_cl(values: pd.DataFrame, names: Sequence[str] = NAMES) -> pd.DataFrame:
    """The values of these scores against `cl`."""
    return values[values["score"].isin(names) & (values["reference"] == "cl")]


def table(values: pd.DataFrame, score: str) -> pd.DataFrame:
    """One row per seed and epoch after the start, one column per arm."""
    chosen = of_cl(values, [score])
    return chosen[chosen["epoch"] > 0].pivot(index=["seed", "epoch"], columns="arm", values="value")


def measured(values: pd.DataFrame) -> list[str]:
    """The scores that were measured for `nscl`, `scl` and `ce`, in the order of NAMES."""
    return [name for name in NAMES if set(ARMS) <= {*of_cl(values, [name])["arm"]}]


def nearer(values: pd.DataFrame, score: str) -> pd.DataFrame:
    """How much nearer `nscl` is to `cl` than `scl` and than `ce`, per seed and epoch; negative: it is farther away."""
    arms = table(values, score)
    sign = 1 if score in SIMILARITIES else -1
    return pd.DataFrame({arm: sign * (arms["nscl"] - arms[arm]) for arm in ARMS[1:]})


def end(by_epoch: Any) -> Any:
    """The rows of the last epoch, by seed; `by_epoch` is a table or a column with the index (seed, epoch)."""
    return by_epoch.xs(by_epoch.index.get_level_values("epoch").max(), level="epoch")


def nearest(values: pd.DataFrame) -> pd.DataFrame:
    """In how many epochs and seeds `nscl` is nearest to `cl`, and the epochs in which it is not in every seed."""
    rows = []
    for score in measured(values):
        first = (nearer(values, score) > 0).all(axis=1)
        missed = first[~first].index.unique("epoch").sort_values()
        seeds = first.groupby("seed").all()
        rows.append(
            {
                "score": score,
                "NSCL nearest, epochs x seeds": f"{int(first.sum())} of {len(first)}",
                "seeds in which in every epoch": f"{int(seeds.sum())} of {len(seeds)}",
                "epochs in which not in every seed": ", ".join(f"{epoch:g}" for epoch in missed) or "none",
            }
        )
    return pd.DataFrame(rows)


def differences(values: pd.DataFrame) -> pd.DataFrame:
    """How much nearer `nscl` is within a seed after the last epoch: mean, effect size, and their 95 % intervals."""
    rows = []
    for score in measured(values):
        final = end(nearer(values, score))
        rows += [{"score": score, "NSCL nearer than": arm, **difference_row(final[arm])} for arm in ARMS[1:]]
    return pd.DataFrame(rows)


def between(values: pd.DataFrame) -> pd.DataFrame:
    """Where each arm lies between the floor (0) and the ceiling (1) after the last epoch, per seed.

    The share is that of the means over seeds. It is undefined if the difference of floor and ceiling within a seed has
    an interval that contains 0: then sharing everything buys nothing that could be measured.
    """
    rows = []
    for score in measured(values):
        final = end(table(values, score))
        sign = 1 if score in SIMILARITIES else -1
        width = sign * (final[FLOOR] - final[CEILING])
        known = paired(list(width)).direction() > 0
        for arm in ARMS:
            moved = sign * (final[FLOOR] - final[arm])
            rows.append(
                {
                    "score": score,
                    "arm": arm,
                    "floor": f"{final[FLOOR].mean():.3f}",
                    "arm's mean": f"{final[arm].mean():.3f}",
                    "ceiling": f"{final[CEILING].mean():.3f}",
                    "share of the way from floor to ceiling": f"{moved.mean() / width.mean():.2f}"
                    if known
                    else "undefined",
                    "each seed": ", ".join(f"{value:.2f}" for value in moved / width) if known else "undefined",
                }
            )
    return pd.DataFrame(rows)


def final(values: pd.DataFrame, order: Sequence[str] = ("cl", FLOOR, *ARMS, CEILING)) -> pd.DataFrame:
    """Every arm after the last epoch: mean +- standard deviation over the seeds."""
    chosen = last(values)
    pairs = of_cl(chosen)
    chosen = pd.concat([pairs, chosen[chosen["score"].isin(QUALITIES)]])
    chosen = chosen[chosen["arm"].isin(order)]
    chosen = chosen.sort_values("arm", key=lambda arms: arms.map(list(order).index), kind="stable")
    return cells(over_seeds(chosen, ["arm"]))


def each_seed(values: pd.DataFrame) -> pd.DataFrame:
    """The values of `nscl`, `scl` and `ce` after the last epoch, one row per seed and arm."""
    arms = {score: end(table(values, score))[list(ARMS)].stack() for score in measured(values)}
    return pd.DataFrame(arms).map("{:.3f}".format).rename_axis(["seed", "arm"]).reset_index()


def sentences(values: pd.DataFrame) -> list[str]:
    """One sentence for each score: over the whole of training, and after its last epoch."""
    words = []
    for score in measured(values):
        every = nearer(values, score)
        first = (every > 0).all(axis=1)
        arm = end(every).mean().idxmin()
        margin = paired(list(end(every)[arm]))
        words.append(
            f"{score}: of nscl, scl and ce, nscl is nearest to cl in {int(first.sum())} of {len(first)} epochs x seeds,"
            f" and in {int(end(first).sum())} of {len(end(first))} seeds after the last epoch; its margin to the next"
            f" arm, {arm}, is then {margin.text()}"
        )
        arms = end(table(values, score))
        if {FLOOR, CEILING} <= {*arms}:
            floor, ceiling, range_ = (
                paired(list(arms[one] - arms[other]))
                for one, other in (("nscl", FLOOR), ("nscl", CEILING), (FLOOR, CEILING))
            )
            words.append(
                f"{score} at the end: floor {arms[FLOOR].mean():.3f}, nscl {arms['nscl'].mean():.3f}, ceiling"
                f" {arms[CEILING].mean():.3f}; nscl minus floor {floor.text()}, nscl minus ceiling {ceiling.text()},"
                f" floor minus ceiling {range_.text()}; nscl is farther than the floor in {_farther(values, score)};"
                f" floor and ceiling differ beyond the interval in {_shared(values, score)}"
            )
    return [*words, *_qualities(values)]


def quality(values: pd.DataFrame, score: str) -> pd.DataFrame:
    """The values of a score of single arms after the last epoch, with one row per seed and one column per arm."""
    return by_seed(last(values), score, "arm")


def _qualities(values: pd.DataFrame) -> list[str]:
    """How much better `nscl` ends than `cl` and the floor: the distances from `cl` do not see in which direction."""
    words = []
    for score in QUALITIES:
        arms = quality(values, score)
        others = [name for name in ("cl", FLOOR) if {name, "nscl"} <= {*arms}]
        if others:
            differences = (f"nscl minus {n} {paired(list(arms['nscl'] - arms[n])).text()}" for n in others)
            shown = ", ".join(f"{name} {arms[name].mean():.3f}" for name in (*others, "nscl"))
            words.append(f"{score} at the end: {shown}; {', '.join(differences)}".replace(FLOOR, "floor"))
    return words


def _farther(values: pd.DataFrame, score: str) -> str:
    """In how many epochs and seeds `nscl` is farther from `cl` than the floor is."""
    arms = table(values, score)
    sign = 1 if score in SIMILARITIES else -1
    return f"{int((sign * (arms[FLOOR] - arms['nscl']) > 0).sum())} of {len(arms)} epochs x seeds"


def _shared(values: pd.DataFrame, score: str) -> str:
    """In how many epochs sharing initialisation, order and views changes the distance of two models with one loss."""
    arms = table(values, score)
    epochs = [paired(list(each)).direction() for _, each in (arms[FLOOR] - arms[CEILING]).groupby("epoch")]
    return f"{sum(map(bool, epochs))} of {len(epochs)} epochs"


def summary(values: pd.DataFrame) -> str:
    """The sentence of the summary: the scores in which `nscl` ends nearest of three arms, how often it is nearest, and
    which arms end at another distance than the floor.
    """
    beyond, counts = [], []
    for score in measured(values):
        every = nearer(values, score)
        if all(paired(list(end(every)[arm])).direction() > 0 for arm in ARMS[1:]):
            beyond.append(score)
        first = (every > 0).all(axis=1)
        counts.append(f"{score} {int(first.sum())} of {len(first)}")
    last_epoch = f"Of NSCL, SCL and CE, NSCL ends nearest to CL beyond the interval in {joined(beyond)}"
    whole = f"it is the nearest of the three in, of all measured epochs and seeds: {', '.join(counts)}"
    return "; ".join([last_epoch, whole, *_off_floor(values)])


def _off_floor(values: pd.DataFrame) -> list[str]:
    """The scores in which NSCL, SCL, CE and the ceiling end with other values than the floor, in words."""
    ends = {score: end(table(values, score)) for score in measured(values)}
    if not all({FLOOR, CEILING} <= {*arms} for arms in ends.values()):
        return []
    ends |= {score: arms for score in QUALITIES if {FLOOR, CEILING, *ARMS} <= {*(arms := quality(values, score))}}
    words = []
    for arm, name in (*((arm, arm.upper()) for arm in ARMS), (CEILING, "the ceiling")):
        off = [score for score, arms in ends.items() if paired(list(arms[arm] - arms[FLOOR])).direction()]
        words.append(f"{name} in {joined(off)}")
    return [f"differing from the floor beyond the interval: {', '.join(words)}"]


def joined(names: Sequence[str]) -> str:
    """The names as a list in words; "no score" for none."""
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1] if names else "no score"


def draw(values: pd.DataFrame, title: str, arms: Sequence[str] = (*ARMS, FLOOR, CEILING)) -> Figure:
    """The scores over the epochs: a thin line with a point per epoch for every seed, a thick line for their mean."""
    styles = {arm: {"color": style.color, "ls": "-"} for arm, style in arm_styles(["cl", *ARMS, *arms]).items()}
    styles |= {arm: {"color": GREY, "ls": line} for arm, line in BESIDE.items()}
    names = [name for name in NAMES if len(of_cl(values, [name]))]
    rows = -(-len(names) // 2)
    figure = Figure(figsize=(9, 1 + 3 * rows), layout="constrained")
    for axes, score in zip(figure.subplots(rows, 2, squeeze=False).flat, names, strict=True):
        of_arms = table(values, score)
        for arm in [each for each in arms if each in of_arms]:
            for _, line in of_arms[arm].groupby("seed"):
                x = line.index.get_level_values("epoch")
                axes.plot(x, line, lw=0.6, marker=".", ms=2.5, alpha=0.6, **styles[arm])
            mean = of_arms[arm].groupby("epoch").mean()
            axes.plot(mean.index, mean, lw=2, label=LABELS.get(arm, arm.upper()), **styles[arm])
        axes.set_ylim(*((min(0, of_arms.min().min()), 1) if score in SIMILARITIES else (0, None)))
        axes.set_title(f"{score} with CL" if score in SIMILARITIES else f"{score} to CL")
        over_epochs(axes)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"{title}\nn = {values['seed'].nunique()} seeds, a thin line each; thick line: mean", fontsize="large"
    )
    return figure
