"""Claims 1 to 5, 8 and 9 of docs/reproduction.md: CL against NSCL, SCL and CE.

Every claim has a function of the values of its sweep (reproduction_values.py) that returns the answer, and one that
draws the figure. Nothing is read or run here.
"""

from collections.abc import Mapping

import pandas as pd
import reproduction_distances as distances
from matplotlib.figure import Figure
from reproduction_figures import against, points, renamed
from reproduction_statistics import Answer, Claim, by_seed, difference_row, last, over_seeds, paired, wide
from reproduction_trends import NAMES, SCORES, of, trend
from reproduction_values import EXPLODES, GAP, GLOBAL, SATURATES

CLASSES = "dataset.classes"
SOURCES = {
    "nscl": "everything",
    "nscl_init": "unshared init",
    "nscl_order": "unshared order",
    "nscl_views": "unshared views",
}
EARLY = 2  # epochs, in claim 3
GROWTH_EPOCHS = (1, 2, 5, 10, 20)
ON_DIGITS = "Measured against CL on digits after the last epoch; layer h, test images"


def closest(values: pd.DataFrame) -> Answer:
    """Distance of NSCL, SCL and CE from CL, over the whole of training."""
    return Answer(
        distances.summary(values),
        distances.sentences(values),
        {
            "After the last epoch": distances.final(values),
            "Over all measured epochs": distances.nearest(values),
            "Differences within a seed after the last epoch, positive if NSCL is nearer": distances.differences(values),
            "Between floor (0) and ceiling (1) after the last epoch": distances.between(values),
        },
    )


def temperature(values: pd.DataFrame) -> Answer:
    """Temperature and alignment, at equal epochs."""
    return trend(last(values), "temperature", "as the temperature rises")


def classes(values: pd.DataFrame) -> Answer:
    """Alignment and number of classes, early and late."""
    return trend(_early_and_late(values), CLASSES, "as the number of classes grows", ["epoch"])


def _early_and_late(values: pd.DataFrame) -> pd.DataFrame:
    chosen = of(values, *NAMES)
    return chosen[chosen["epoch"].isin([EARLY, chosen["epoch"].max()])].astype({"epoch": int})


def batch_size(values: pd.DataFrame) -> Answer:
    """Batch size under three learning-rate rules."""
    return trend(last(values), "batch.size", "as the batch size grows", ["optimizer.lr_scaling"])


def longer(values: pd.DataFrame) -> Answer:
    """Length of training and alignment."""
    return trend(last(values), "epochs", "with longer training")


def growth(values: pd.DataFrame) -> Answer:
    """Growth of the gap, alignment over epochs, against the noise floor and the ceiling."""
    arms = ("nscl", "scl", "ce", distances.FLOOR, distances.CEILING)
    chosen = of(values, *arms)
    chosen = chosen[chosen["epoch"].isin([*GROWTH_EPOCHS, chosen["epoch"].max()])]
    fits = values[(values["arm"] == "nscl") & (values["reference"] == "cl")]
    errors = {name: by_seed(fits, name, "arm")["nscl"] for name in (SATURATES, EXPLODES)}
    better = errors[SATURATES] < errors[EXPLODES]
    gaps, cka = distances.table(values, GAP), distances.table(values, "CKA")
    final, final_cka = distances.end(gaps), distances.end(cka)
    early = gaps.xs(5, level="epoch")["nscl"]
    lowest = cka["nscl"].groupby("epoch").mean()
    trough = lowest.index[int(lowest.to_numpy().argmin())]
    floor = paired(list(final["nscl"] - final[distances.FLOOR]))
    kept = paired(list(final_cka["nscl"] - final_cka[distances.FLOOR]))
    above = paired(list(final_cka["nscl"] - final_cka[distances.CEILING]))
    sentences = [
        f"a saturating curve fits nscl's global gap better than an exponential in {int(better.sum())} of {len(better)}"
        " seeds",
        f"after epoch 5 nscl's gap is {100 * early.mean() / final['nscl'].mean():.0f} % of its last value",
        f"one weight moved by a rounding error (cl_moved) gives a gap of {final[distances.FLOOR].mean():.3f},"
        f" {100 * final[distances.FLOOR].mean() / final['nscl'].mean():.0f} % of nscl's; nscl's gap minus the floor is"
        f" {floor.text()}",
        f"nscl's CKA is lowest after epoch {trough:g} ({lowest.min():.3f}) and {lowest.iloc[-1]:.3f} at the"
        f" end; minus the floor it is then {kept.text()}, minus the ceiling {above.text()}",
    ]
    words = {1: "above", -1: "below", 0: "not distinguishable from"}
    summary = (
        f"NSCL's gap ends {words[floor.direction()]} the floor and its CKA {words[kept.direction()]} the floor and"
        f" {words[above.direction()]} the ceiling; a saturating curve fits better in {int(better.sum())} of"
        f" {len(better)} seeds"
    )
    table = over_seeds(chosen.astype({"epoch": int}), ["arm", "epoch"])
    return Answer(summary, sentences, {"": wide(table)})


def shared_source(values: pd.DataFrame) -> Answer:
    """What sharing the initialisation, the order and the augmentation buys."""
    chosen = _of_sources(values)
    rows, beyond = [], dict[str, list[str]]()
    for score in (*SCORES, GLOBAL):
        table = by_seed(chosen, score, "shares")
        for name in list(SOURCES.values())[1:]:
            lost = table[name] - table[SOURCES["nscl"]]
            rows.append({"score": score, "shares": name, **difference_row(lost)})
            if paired(list(lost)).direction():
                beyond.setdefault(score, []).append(f"{name} ({lost.mean():+.3f})")
    sentences = [
        f"{score} changes beyond the 95 % interval with: {', '.join(beyond.get(score, [])) or 'nothing'}"
        for score in (*SCORES, GLOBAL)
    ]
    summary = "changes beyond the interval: " + "; ".join(
        f"{score}: {', '.join(each.split(' (')[0] for each in beyond.get(score, [])) or 'none'}"
        for score in (*SCORES, GLOBAL)
    )
    tables = {
        "": wide(over_seeds(chosen, ["shares"])),
        "Differences within a seed from sharing everything": pd.DataFrame(rows),
    }
    return Answer(summary, sentences, tables)


def _of_sources(values: pd.DataFrame) -> pd.DataFrame:
    chosen = renamed(last(of(values, *SOURCES, names=(*SCORES, GLOBAL))), "arm", SOURCES)
    return chosen.rename(columns={"arm": "shares"})


def draw_epochs(values: pd.DataFrame) -> Figure:
    """Distances from CL over the epochs."""
    return distances.draw(values, "Distance from CL on digits; layer h, test images")


def draw_growth(values: pd.DataFrame) -> Figure:
    """NSCL between floor and ceiling over the epochs."""
    arms = ("nscl", distances.FLOOR, distances.CEILING)
    return distances.draw(values, "NSCL between floor and ceiling on digits; layer h, test images", arms)


def draw_temperature(values: pd.DataFrame) -> Figure:
    """NSCL's distance from CL against the temperature."""
    chosen = last(of(values, *NAMES))
    return against(chosen, "temperature", SCORES, title=ON_DIGITS, log=(True, False))


def draw_classes(values: pd.DataFrame) -> Figure:
    """NSCL's distance from CL against the number of classes, early and late."""
    chosen = _early_and_late(values).assign(after=lambda rows: "epoch " + rows["epoch"].astype(str))
    title, label = "Measured against CL on fractals; layer h, test images", "number of classes"
    return against(chosen, CLASSES, SCORES, series="after", title=title, log=(True, False), label=label)


def draw_batch_size(values: pd.DataFrame) -> Figure:
    """NSCL's distance from CL against the batch size, by learning-rate rule."""
    chosen, rule = last(of(values, *NAMES)), "optimizer.lr_scaling"
    label = "images in a batch"
    return against(chosen, "batch.size", SCORES, series=rule, title=ON_DIGITS, log=(True, False), label=label)


def draw_longer(values: pd.DataFrame) -> Figure:
    """NSCL's distance from CL against the length of training."""
    return against(last(of(values, *NAMES)), "epochs", SCORES, title=ON_DIGITS, log=(True, False))


def draw_sources(values: pd.DataFrame) -> Figure:
    """NSCL's distance from CL by what the two share."""
    return points(_of_sources(values), "shares", (*SCORES, GLOBAL), title=f"{ON_DIGITS}, by what is shared")


CLAIMS: Mapping[str, Claim] = {
    "1": Claim("Distance of NSCL, SCL and CE from CL", "controls", closest, draw_epochs),
    "2": Claim("Temperature and alignment", "temperature", temperature, draw_temperature),
    "3": Claim("Alignment and the number of classes, early and late", "classes", classes, draw_classes),
    "4": Claim("Batch size under three learning-rate rules", "batch_size", batch_size, draw_batch_size),
    "5": Claim("Growth of the weight gap", "controls", growth, draw_growth),
    "8": Claim("Which shared source of randomness matters", "controls", shared_source, draw_sources),
    "9": Claim("Length of training and alignment", "epochs", longer, draw_longer),
}
