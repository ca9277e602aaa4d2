"""Claims 6 and 7 of docs/reproduction.md: the loss gap against its bound, and few-shot errors against theirs."""

from collections.abc import Mapping
from math import e

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from reproduction_claims import CLASSES
from reproduction_figures import against
from reproduction_statistics import Answer, Claim, by_seed, interval, last, over_seeds, paired, wide
from reproduction_values import BOUNDS, CORRELATION, DIFFERENCE, ERROR

from coupled.analysis.theory.bound_formulas import vacuous_error

Values = NDArray[np.float64]
BATCHES, SET = "bound of the batches", "bound of the dataset"
PUBLISHED = {2: 0.80, 10: 0.148, 20: 0.076, 100: 0.0117}  # CIFAR-100 after 300 epochs, read from a figure
QUOTIENT = "smallest bound / error"
COUNTS = "Cases (arm x shots x seed) in which a bound is not vacuous"
TASKS = {"all": (10, "among ten classes"), "two_way": (2, "between two classes")}


def log_fit(x: Values, y: Values) -> tuple[float, float, float]:
    """Slope, intercept and R^2 of log y against log x, by least squares."""
    a, b = np.log(x), np.log(y)
    slope, intercept = np.polyfit(a, b, 1)
    residual = b - slope * a - intercept
    return float(slope), float(intercept), float(1 - (residual**2).sum() / ((b - b.mean()) ** 2).sum())


def fits(values: pd.DataFrame) -> pd.DataFrame:
    """Fits of log(loss gap) per seed: against log(C - 1), and against the logarithm of the bound.

    The bound log(1 + e^2 / (C - 1)) itself is fitted against C - 1 for comparison: it is no power law, so its slope
    depends on the range of C. The last row fits the published values.
    """
    gaps = last(values[(values["arm"] == "cl")])
    table, bound = by_seed(gaps, DIFFERENCE, CLASSES), by_seed(gaps, SET, CLASSES)
    others, seeds = table.columns.to_numpy(float) - 1, table.to_numpy()
    published = np.array([*PUBLISHED.items()])
    pairs: dict[str, list[tuple[Values, Values]]] = {
        "DCL - NSCL against C - 1": [(others, row) for row in seeds],
        "log(1 + e^2 / (C - 1)) against C - 1": [(others, np.log1p(e**2 / others))],
        "DCL - NSCL against the bound of the dataset": [*zip(bound.loc[table.index].to_numpy(), seeds, strict=True)],
        "published values against C - 1": [(published[:, 0] - 1, published[:, 1])],
    }
    rows = []
    for name, each in pairs.items():
        parts = np.array([log_fit(x, y) for x, y in each])
        row = {"fit of the logarithms": name}
        for place, column in enumerate(("slope", "intercept", "R^2")):
            told = paired(list(parts[:, place]))
            text = f"{told.mean:.4f}" if column == "R^2" else f"{told.mean:.2f}"
            row[column] = text + ("" if len(each) < 2 or column == "R^2" else f" ({interval(told.low, told.high, 2)})")
        rows.append({**row, "seeds": str(len(each)) if len(each) > 1 else "-"})
    return pd.DataFrame(rows)


def loss_gap(values: pd.DataFrame) -> Answer:
    """Loss difference of DCL and NSCL, its bound, and the number of classes."""
    names = (DIFFERENCE, BATCHES, SET, CORRELATION)
    of_cl = values[(values["arm"] == "cl") & values["score"].isin(names)]
    final = pd.concat([last(of_cl[of_cl["score"] != CORRELATION]), of_cl[of_cl["score"] == CORRELATION]])
    final = final.sort_values("score", key=lambda scores: scores.map(names.index), kind="stable")
    every = of_cl.pivot_table(index=[CLASSES, "seed", "epoch"], columns="score", values="value")
    under = every[DIFFERENCE] <= every[BATCHES]
    table, gaps = fits(values), by_seed(final, DIFFERENCE, CLASSES)
    bound = by_seed(final, SET, CLASSES)
    share = (gaps / bound).mean()
    sentences = [
        f"DCL - NSCL falls from {gaps.mean().iloc[0]:.3f} with {gaps.columns[0]} classes to {gaps.mean().iloc[-1]:.4f}"
        f" with {gaps.columns[-1]}",
        f"log(DCL - NSCL) against log(C - 1) has the slope {table['slope'].iloc[0]}, mean and 95 % interval over the"
        f" seeds; the bound has {table['slope'].iloc[1]} over the same numbers of classes",
        f"DCL - NSCL is below the bound of its batches in {int(under.sum())} of {len(under)} epochs x runs",
        f"it is {100 * share.iloc[0]:.0f} % of the bound of the dataset with {gaps.columns[0]} classes and"
        f" {100 * share.iloc[-1]:.0f} % with {gaps.columns[-1]}",
    ]
    summary = (
        f"slope against C - 1 (logarithms): {table['slope'].iloc[0]}; below its bound in {int(under.sum())} of"
        f" {len(under)} epochs x runs"
    )
    return Answer(summary, sentences, {"": wide(over_seeds(final, [CLASSES])), "Fits": table})


def few_shot(values: pd.DataFrame) -> Answer:
    """Few-shot errors against their bounds. A bound counts only where it is below chance, or 1 among ten classes."""
    chosen = last(values[values["arm"].isin(["cl", "nscl"]) & values["score"].isin([*BOUNDS, ERROR])])
    case = ["arm", "task", "shots", "seed"]
    each = chosen.pivot(index=case, columns="score", values="value").reset_index()
    rows = []
    for form in BOUNDS:
        for task, (count, words) in TASKS.items():
            told = each[each["task"] == task]
            if told.empty:
                continue
            says = told[told[form] < vacuous_error(count)]
            rows.append(
                {
                    "bound": form,
                    "task": words,
                    "vacuous from": f"{vacuous_error(count):g}",
                    "not vacuous": f"{len(says)} of {len(told)}",
                    "of these, holds": f"{int((says[form] >= says[ERROR]).sum())} of {len(says)}",
                    QUOTIENT: "" if says.empty else f"{(says[form] / says[ERROR]).min():.1f}",
                }
            )
    counts = pd.DataFrame(rows)
    sentences = [f"{row['bound']} {row['task']}: {_said(row)}" for row in rows]
    summary = "; ".join(f"{row['bound']} {row['task']} {_said(row, short=True)}" for row in rows)
    chosen = chosen.sort_values("score", key=lambda scores: scores.map([*BOUNDS, ERROR].index), kind="stable")
    table = wide(over_seeds(chosen.astype({"shots": int}), ["arm", "task", "shots"]))
    return Answer(summary, sentences, {"": table, COUNTS: counts})


def _said(row: Mapping[str, str], short: bool = False) -> str:
    says, cases = row["not vacuous"].split(" of ")
    if says == "0":
        return f"is vacuous in all {cases} cases"
    words = f"is not vacuous in {says} of {cases} cases, and holds in {row['of these, holds']}"
    return words if short else f"{words} of these; the smallest quotient of bound and error is {row[QUOTIENT]}"


def draw_loss_gap(values: pd.DataFrame) -> Figure:
    """Loss gap and its bound against the number of classes, both axes logarithmic."""
    chosen = last(values[(values["arm"] == "cl") & values["score"].isin([DIFFERENCE, SET])])
    chosen = chosen.assign(quantity=chosen["score"], score="loss in nats", others=chosen[CLASSES] - 1)
    title, label = "DCL - NSCL of CL on fractals, temperature 1, train images", "number of classes - 1"
    names = ["loss in nats"]
    return against(chosen, "others", names, series="quantity", title=title, log=(True, True), label=label)


def draw_few_shot(values: pd.DataFrame) -> Figure:
    """Bounds and measured errors between two classes against the images a class."""
    chosen = last(values[values["score"].isin([*BOUNDS, ERROR]) & (values["task"] == "two_way")])
    chosen = chosen[chosen["arm"].isin(["cl", "nscl"])].astype({"shots": int})
    chosen = chosen.assign(quantity=chosen["score"], score=chosen["arm"].str.upper() + ", two classes")
    title, label = "Few-shot error and bounds on digits; layer h, test images", "images a class"
    scores = list(dict.fromkeys(chosen["score"]))
    figure = against(chosen, "shots", scores, series="quantity", title=title, log=(True, True), label=label)
    for axes in figure.axes:
        axes.axhline(vacuous_error(2), color="0.4", lw=1, ls=":")
        axes.text(1, vacuous_error(2) * 1.08, "vacuous from here", fontsize="x-small", color="0.3")
    return figure


CLAIMS: Mapping[str, Claim] = {
    "6": Claim("Loss difference of DCL and NSCL, and the number of classes", "classes", loss_gap, draw_loss_gap),
    "7": Claim("Few-shot error against its bounds", "controls", few_shot, draw_few_shot),
}
