"""Compute the table and the verdict of each claim of docs/reproduction.md from the rows of its sweep.

Nothing is read or run here. The rows are those of sweep.csv (coupled.sweep.tables.collect). A table has, for each case
and score, the mean, the standard deviation over seeds, and the number of seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from coupled.analysis.tables import whole_encoder
from coupled.analysis.theory.bound_formulas import vacuous_error

SCORES = {"CKA": ("test_alignment", "cka"), "RSA": ("test_alignment", "rsa"), "weight gap": ("weight_gap", "gap")}
GLOBAL = "global weight gap"  # of all weights as one vector
SHARED = "shared"


class Answer(NamedTuple):
    """A tidy table (case columns, score, mean, sd, seeds) and its verdict: sentences joined by "; "."""

    table: pd.DataFrame
    verdict: str


class Claim(NamedTuple):
    """A section of the page. `draw` draws the figure; without `draw`, it is a figure of the sweep."""

    title: str
    sweep: str
    figure: str
    answer: Callable[[pd.DataFrame], Answer]
    draw: Callable[[pd.DataFrame], Figure] | None = None


def scores(rows: pd.DataFrame, names: Sequence[str] = tuple(SCORES)) -> pd.DataFrame:
    """The rows of these scores for layer h (weight gaps: mean over layers) against `cl`, with a column `score`."""
    parts = []
    for name in names:
        table, metric = SCORES["weight gap" if name == GLOBAL else name]
        chosen = rows[(rows["table"] == table) & (rows["metric"] == metric) & (rows["reference"] == "cl")]
        if table == "weight_gap":
            chosen = whole_encoder(chosen, "global" if name == GLOBAL else "mean")
        else:
            chosen = chosen[chosen["module"] == "h"]
        parts.append(chosen.assign(score=name))
    return pd.concat(parts, ignore_index=True)


def last(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last epoch of each run."""
    return rows[rows["epoch"] == rows.groupby("run")["epoch"].transform("max")]


def over_seeds(rows: pd.DataFrame, case: Sequence[str]) -> pd.DataFrame:
    """Mean, standard deviation (n - 1) and number of seeds of each case and score."""
    groups = rows.groupby([*case, "score"], sort=False, dropna=False)["value"]
    return groups.agg(mean="mean", sd="std", seeds="count").reset_index()


def by_seed(rows: pd.DataFrame, score: str, column: str) -> pd.DataFrame:
    """Values of a score, with one row per seed and one column per case."""
    return rows[rows["score"] == score].pivot_table(index="seed", columns=column, values="value")


def _count(true: "pd.Series[bool]") -> str:
    return f"{int(true.sum())} of {len(true)} seeds"


def closest(rows: pd.DataFrame) -> Answer:
    """Distance of NSCL, SCL and CE from CL."""
    found = last(scores(rows[rows["arm"].isin(["nscl", "scl", "ce"])], (*SCORES, GLOBAL)))
    words = []
    for score in (*SCORES, GLOBAL):
        sign, word = (-1, "below") if "gap" in score else (1, "above")
        values = sign * by_seed(found, score, "arm")
        ahead = values["nscl"] > values[["scl", "ce"]].max(axis=1)
        next_best = values[["scl", "ce"]].mean().idxmax()
        margin, noise = (values["nscl"] - values[next_best]).mean(), 2 * values[["nscl", next_best]].std().max()
        words.append(
            f"{score}: nscl is {word} scl and ce in {_count(ahead)}, with a mean margin of {margin:.3f} to the next arm"
            f" ({'within' if abs(margin) < noise else 'beyond'} the spread)"
        )
    return Answer(over_seeds(found, ["arm"]), "; ".join(words))


def rises(rows: pd.DataFrame, factor: str, word: str, where: str = "") -> str:
    """Describe how CKA and RSA change with a factor.

    States the means at both ends and the number of seeds that rise or fall at every step. A difference below twice
    the larger standard deviation of the two ends is reported as no change.
    """
    words = []
    for score in ("CKA", "RSA"):
        values = by_seed(rows, score, factor)
        steps = np.diff(values.to_numpy(), axis=1)
        mean = values.mean()
        up, down = ((sign * steps > 0).all(axis=1).sum() for sign in (1, -1))
        change, noise = mean.iloc[-1] - mean.iloc[0], 2 * values.iloc[:, [0, -1]].std().max()
        unchanged = "does not change beyond the spread"
        direction = unchanged if abs(change) < noise else "rises" if change > 0 else "falls"
        words.append(
            f"{where}{score} {direction} {word}: {mean.iloc[0]:.3f} to {mean.iloc[-1]:.3f} (up at every step in {up} of"
            f" {len(values)} seeds, down at every step in {down})"
        )
    return "; ".join(words)


def temperature(rows: pd.DataFrame) -> Answer:
    """Temperature and alignment, at equal epochs."""
    found = last(scores(rows[rows["arm"] == "nscl"]))
    return Answer(over_seeds(found, ["temperature"]), rises(found, "temperature", "as the temperature rises"))


def classes(rows: pd.DataFrame) -> Answer:
    """Alignment and number of classes, early and late."""
    key = "dataset.classes"
    found = scores(rows[rows["arm"].isin(["nscl", "scl"])])
    found = found[found["epoch"].isin([2, found["epoch"].max()])]
    words = [
        rises(part, key, "as the number of classes grows from 2 to 100", f"epoch {epoch}: ")
        for epoch, part in found[found["arm"] == "nscl"].groupby("epoch")
    ]
    return Answer(over_seeds(found, ["arm", "epoch", key]), "; ".join(words))


def batch_size(rows: pd.DataFrame) -> Answer:
    """Batch size under three learning-rate rules."""
    found = last(scores(rows[rows["arm"] == "nscl"]))
    words = [
        rises(part, "batch.size", "as the batch size grows from 64 to 256", f"{rule}: ")
        for rule, part in found.groupby("optimizer.lr_scaling", sort=False)
    ]
    return Answer(over_seeds(found, ["optimizer.lr_scaling", "batch.size"]), "; ".join(words))


def growth(rows: pd.DataFrame) -> Answer:
    """Growth of the gap, alignment over epochs, and the noise floor."""
    arms = ["nscl", "scl", "ce", "cl_moved"]
    found = scores(rows[rows["arm"].isin(arms)], ("weight gap", "CKA"))
    found = found[found["epoch"].isin([1, 2, 5, 10, 20, found["epoch"].max()])]
    fits = rows[(rows["table"] == "weight_gap_growth") & (rows["metric"] == "rmse") & (rows["arm"] == "nscl")]
    errors = fits.pivot_table(index="seed", columns="model", values="value")
    better = errors["saturation"] < errors["exponential"]
    gaps = by_seed(last(found[found["arm"] == "nscl"]), "weight gap", "arm")["nscl"]
    early = by_seed(found[(found["arm"] == "nscl") & (found["epoch"] == 5)], "weight gap", "arm")["nscl"]
    floor = by_seed(last(found[found["arm"] == "cl_moved"]), "weight gap", "arm")["cl_moved"]
    verdict = (
        f"a saturating curve fits nscl's global gap better than an exponential in {_count(better)}; after the first"
        f" eighth of the epochs nscl's gap is {early.mean() / gaps.mean():.0%} of its last value; one perturbed bit"
        f" gives a gap of {floor.mean():.3f}, {floor.mean() / gaps.mean():.0%} of nscl's"
    )
    return Answer(over_seeds(found, ["arm", "epoch"]), verdict)


def loss_gap(rows: pd.DataFrame) -> Answer:
    """Loss difference of DCL and NSCL, its bound, and the number of classes."""
    key = "dataset.classes"
    names = {"gap": "DCL - NSCL", "bound": "bound of the batches", "set_bound": "bound of the dataset"}
    gaps = rows[(rows["table"] == "loss_gap") & (rows["arm"] == "cl") & rows["metric"].isin(names)]
    gaps = last(gaps.assign(score=gaps["metric"].map(names)))
    correlation = rows[(rows["table"] == "loss_correlation") & (rows["arm"] == "cl")]
    correlation = correlation.assign(score="correlation of the losses")
    table = over_seeds(pd.concat([gaps, correlation]), [key])
    mean = table[table["score"] == names["gap"]].set_index(key)["mean"]
    slope = np.polyfit(np.log(mean.index.to_numpy(float)), np.log(mean.to_numpy()), 1)[0]
    wide = gaps.pivot_table(index=[key, "seed"], columns="score", values="value")
    under = wide[names["gap"]] <= wide[names["bound"]]
    verdict = (
        f"DCL - NSCL falls like C^{slope:.2f}, from {mean.iloc[0]:.3f} to {mean.iloc[-1]:.4f}; DCL - NSCL is below the"
        f" bound of its batches in {int(under.sum())} of {len(wide)} runs"
    )
    return Answer(table, verdict)


def few_shot(rows: pd.DataFrame) -> Answer:
    """Few-shot errors against their bounds."""
    found = last(rows[(rows["table"] == "bounds") & rows["bound"].isin(["proposition_1", "documented_form"])])
    found = found.assign(score=np.where(found["quantity"] == "measured", "measured error", found["bound"]))
    found = found.drop_duplicates(["run", "arm", "of", "task", "shots", "score"])
    told = found["shots"].isin([1, 5, 20, 100]) & (found["of"] == "nccc_error")
    table = over_seeds(found[told & found["arm"].isin(["cl", "nscl"])], ["arm", "task", "shots"])
    return Answer(table, few_shot_verdict(table))


def few_shot_verdict(table: pd.DataFrame) -> str:
    """The number of cases of claim_7.csv in which each bound holds, and in which it is vacuous."""
    wide = table.pivot_table(index=["arm", "task", "shots"], columns="score", values="mean")
    two_way = wide.index.get_level_values("task") == "two_way"
    vacuous = np.where(two_way, vacuous_error(2), vacuous_error(10))
    words = []
    for bound in ("proposition_1", "documented_form"):
        holds, empty = wide[bound] >= wide["measured error"], wide[bound] >= vacuous
        held = f"{int(holds.sum())} of {len(wide)} cases"
        words.append(f"{bound} holds in {held} and is vacuous in {int(empty.sum())}")
    return "; ".join(words)


def shared_source(rows: pd.DataFrame) -> Answer:
    """Which shared source of randomness matters."""
    names = {
        "nscl": SHARED,
        "nscl_init": "unshared init",
        "nscl_order": "unshared order",
        "nscl_views": "unshared views",
    }
    found = last(scores(rows[rows["arm"].isin(names)])).assign(shares=lambda each: each["arm"].map(names))
    table = over_seeds(found, ["shares"])
    words = []
    for score in ("CKA", "weight gap"):
        mean = table[table["score"] == score].set_index("shares")["mean"]
        lost = (mean - mean[SHARED]).abs().drop(SHARED).sort_values(ascending=False)
        words.append(
            f"{score} differs from sharing everything by "
            + ", ".join(f"{value:.3f} ({name})" for name, value in lost.items())
        )
    return Answer(table, "; ".join(words))


def longer(rows: pd.DataFrame) -> Answer:
    """Length of training and alignment."""
    found = last(scores(rows[rows["arm"] == "nscl"]))
    return Answer(over_seeds(found, ["epochs"]), rises(found, "epochs", "from 10 to 160 epochs"))


CLAIMS: Mapping[str, Claim] = {
    "1": Claim("Distance of NSCL, SCL and CE from CL", "controls", "epochs", closest),
    "2": Claim("Temperature and alignment", "temperature", "temperature", temperature),
    "3": Claim("Alignment and the number of classes, early and late", "classes", "dataset_classes", classes),
    "4": Claim("Batch size under three learning-rate rules", "batch_size", "batch_size", batch_size),
    "5": Claim("Growth of the weight gap", "controls", "epochs", growth),
    "6": Claim("Loss difference of DCL and NSCL, and the number of classes", "classes", "", loss_gap),
    "7": Claim("Few-shot error against its bounds", "controls", "", few_shot),
    "8": Claim("Which shared source of randomness matters", "controls", "", shared_source),
    "9": Claim("Length of training and alignment", "epochs", "epochs", longer),
}
