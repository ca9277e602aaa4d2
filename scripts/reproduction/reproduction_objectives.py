"""Claims 10 to 12 of docs/reproduction.md: dual objectives, collapse without negatives, and the forms of SupCon.

The functions have the form of those of reproduction_claims.py.
"""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from reproduction_figures import points
from reproduction_statistics import Answer, Claim, by_seed, difference_row, last, over_seeds, paired, wide
from reproduction_values import ALIGNED, CENTRE, FIRST, PROBE, RANK, SPREAD

from coupled.analysis.plots.pair_figures import alignment_matrix

QUALITY = (CENTRE, PROBE, "20 neighbours", "effective rank")
DUAL = (("vicreg_exp", "vicreg_ctr"), ("spectral", "barlow"))  # the same criterion over images and over dimensions
WITHOUT_LABELS = ("simclr", "cl", "spectral", "vicreg", "vicreg_exp", "vicreg_ctr", "barlow", "tcr", "simsiam", "byol")
COLLAPSED = 0.05  # an arm with a smaller spread of z in collapse.csv is collapsed
DECAY = "optimizer.weight_decay"
FIRST_ALIGNED, LAST_ALIGNED = f"{ALIGNED}, epoch 1", f"{ALIGNED}, last"
POSITIVES = {"out_1": "1", "out_3": "3", "out_5": "5", "out": "all"}


def qualities(values: pd.DataFrame) -> pd.DataFrame:
    """Quality of layer h after the last epoch, in the order of QUALITY."""
    chosen = last(values[values["score"].isin(QUALITY)])
    return chosen.sort_values("score", key=lambda scores: scores.map(QUALITY.index), kind="stable")


def pairs(values: pd.DataFrame) -> pd.DataFrame:
    """CKA of layer h for every pair of arms after the last epoch, with a column `pair`."""
    chosen = last(values[values["score"] == "CKA"])
    return chosen.assign(pair=[" ".join(sorted(each)) for each in chosen[["reference", "arm"]].to_numpy()])


def duality(values: pd.DataFrame) -> Answer:
    """CKA of the dual pairs among all pairs without labels."""
    every = pairs(values)
    inside = every[every["reference"].isin(WITHOUT_LABELS) & every["arm"].isin(WITHOUT_LABELS)]
    each = by_seed(inside, "CKA", "pair")
    mean = each.mean().sort_values(ascending=False)
    ranks, sentences, rows, short = each.rank(axis=1, ascending=False).astype(int), [], [], []
    for pair in DUAL:
        name = " ".join(sorted(pair))
        place = list(mean.index).index(name) + 1
        of_seeds = ", ".join(map(str, ranks[name]))
        sentences.append(
            f"CKA of {pair[0]} and {pair[1]} is {mean[name]:.3f}, rank {place} of {len(mean)} pairs ({of_seeds} in the"
            " single seeds)"
        )
        others = each.drop(columns=name).mean(axis=1)
        rows.append({"pair": f"{pair[0]}, {pair[1]}", **difference_row(each[name] - others)})
        short.append(f"{pair[0]} and {pair[1]} rank {place}")
    sentences.append(f"the most similar pair is {mean.index[0].replace(' ', ' and ')} ({mean.iloc[0]:.3f})")
    sentences.append(f"the mean of all pairs is {mean.mean():.3f}")
    tables = {
        "": wide(over_seeds(qualities(values), ["arm"])),
        "CKA minus the mean of the other pairs, within a seed": pd.DataFrame(rows),
    }
    return Answer(f"of {len(mean)} pairs by CKA: {', '.join(short)}", sentences, tables)


def matrix(values: pd.DataFrame) -> Figure:
    """Draw the CKA of every pair of arms, as mean and standard deviation over seeds."""
    every = pairs(values).assign(metric="cka", module="h", num_images=0)
    where = ["epoch", "reference", "arm", "module", "metric", "num_images"]
    of_pairs = every.groupby(where, sort=False)["value"]
    rows = of_pairs.agg(value="mean", value_sd="std").reset_index().drop(columns="num_images")
    order = list(dict.fromkeys([*every["reference"], *every["arm"]]))
    return alignment_matrix(rows, order, seeds=values["seed"].nunique())


def directpred(values: pd.DataFrame) -> Answer:
    """Collapse with and without target network and weight decay; eigenspace alignment over training."""
    chosen = _of_predictors(values)
    ends = chosen[chosen["score"] == SPREAD]
    gone = (ends["value"] < COLLAPSED).groupby([ends[DECAY], ends["arm"]]).agg(["sum", "count"]).reset_index()
    collapsed = [
        f"{each['arm']} with weight decay {each[DECAY]:g} in {each['sum']} of {each['count']} seeds"
        for each in gone[gone["sum"] > 0].to_dict("records")
    ]
    trained = chosen[chosen["arm"] == "byol"]
    early, late = (trained[trained["score"] == name]["value"].mean() for name in (FIRST_ALIGNED, LAST_ALIGNED))
    said = ", ".join(collapsed) or "none in any seed"
    least = ends.sort_values("value").iloc[0]
    sentences = [
        f"collapsed arms (spread of z below {COLLAPSED}): {said}",
        f"the alignment of byol's trained linear predictor with F's first {FIRST} directions is {early:.2f} after the"
        f" first epoch and {late:.2f} after the last",
        f"the smallest spread of z is {least['value']:.3f}: {least['arm']} with weight decay {least[DECAY]:g} in seed"
        f" {least['seed']:g}",
    ]
    summary = (
        f"collapsed arms: {said}, at a limit of {COLLAPSED} for the spread of z; the smallest is {least['value']:.3f}."
        f" The alignment of byol's trained predictor with F goes from {early:.2f} to {late:.2f}"
    )
    return Answer(summary, sentences, {"": wide(over_seeds(chosen, [DECAY, "arm"]))})


def _of_predictors(values: pd.DataFrame) -> pd.DataFrame:
    centres = values[values["score"] == CENTRE]
    spread, rank = (last(values[values["score"] == name]) for name in (SPREAD, RANK))
    case = [DECAY, "seed", "arm", "epoch"]
    aligned = values[values["score"] == ALIGNED].groupby(case, sort=False)["value"].mean().reset_index()
    early = aligned[aligned["epoch"] == 1].assign(score=FIRST_ALIGNED)
    return pd.concat([spread, rank, last(centres), early, last(aligned).assign(score=LAST_ALIGNED)])


def draw_directpred(values: pd.DataFrame) -> Figure:
    """Spread of z, quality, and alignment of the predictor, of every arm and weight decay."""
    chosen = _of_predictors(values)
    chosen = chosen.assign(case=chosen["arm"] + ", " + chosen[DECAY].map("{:g}".format)).sort_values(["arm", DECAY])
    title = "Arm, weight decay; digits, test images"
    return points(chosen, "case", [SPREAD, CENTRE, FIRST_ALIGNED, LAST_ALIGNED], title=title)


def supcon(values: pd.DataFrame) -> Answer:
    """The `out` and `in` forms, and the number of positives."""
    chosen = qualities(values)
    probe = by_seed(chosen, PROBE, "arm")
    better = paired(list(probe["out"] - probe["in"]))
    order = probe[list(POSITIVES)].mean()
    counts = ", ".join(f"{value:.3f} ({name})" for name, value in zip(POSITIVES.values(), order, strict=True))
    more, over_ce = (paired(list(probe[one] - probe[other])) for one, other in (("out_5", "out_1"), ("out", "ce")))
    sentences = [
        f"the linear probe of `out` is better than that of `in` in {int((probe['out'] > probe['in']).sum())} of"
        f" {len(probe)} seeds (means {probe['out'].mean():.3f} and {probe['in'].mean():.3f}), difference"
        f" {better.text()}",
        f"linear probe by number of positives: {counts}; 5 minus 1: {more.text()}",
        f"the linear probe of `out` minus that of ce: {over_ce.text()}",
    ]
    likeness = pairs(values)
    likeness = likeness[likeness["reference"] == "out"].assign(score="CKA with out")
    words = {1: "better than", -1: "worse than", 0: "not distinguishable from"}
    summary = (
        f"in the linear probe `out` is {words[better.direction()]} `in` and {words[over_ce.direction()]} ce, and 5"
        f" positives are {words[more.direction()]} 1"
    )
    return Answer(summary, sentences, {"": wide(over_seeds(pd.concat([chosen, likeness]), ["arm"]))})


def draw_supcon(values: pd.DataFrame) -> Figure:
    """Quality of every form."""
    return points(
        qualities(values),
        "arm",
        [CENTRE, PROBE, "20 neighbours"],
        title="Forms of SupCon, and CE, on digits; layer h, test images",
    )


CLAIMS: Mapping[str, Claim] = {
    "10": Claim("Alignment of dual objectives", "duality", duality, matrix),
    "11": Claim("Collapse without negatives", "directpred", directpred, draw_directpred),
    "12": Claim("SupCon `out` and `in`, and the number of positives", "supcon", supcon, draw_supcon),
}
