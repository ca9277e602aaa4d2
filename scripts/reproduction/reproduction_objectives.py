"""Claims 10 to 12 of docs/reproduction.md: dual objectives, collapse without negatives, and the forms of SupCon.

Rows and answers have the format of reproduction_claims.py.
"""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from reproduction_claims import Answer, Claim, by_seed, last, over_seeds

from coupled.analysis.plots.pair_figures import alignment_matrix

QUALITY = {
    ("nccc", "euclidean"): "nearest centre",
    ("linear_probe", "regularised"): "linear probe",
    ("knn", "cosine"): "20 neighbours",
    ("effective_rank", "centred"): "effective rank",
}
DUAL = (("vicreg_exp", "vicreg_ctr"), ("spectral", "barlow"))  # the same criterion over images and over dimensions
WITHOUT_LABELS = ("simclr", "cl", "spectral", "vicreg", "vicreg_exp", "vicreg_ctr", "barlow", "tcr", "simsiam", "byol")
COLLAPSED = 0.05  # an arm with a smaller spread of z in collapse.csv is collapsed
FIRST = 5  # number of eigenvectors with the largest eigenvalues


def qualities(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of quality.csv for layer h and the metrics of QUALITY, with a column `score`."""
    rows = rows[(rows["table"] == "quality") & (rows["module"] == "h")]
    keys = list(zip(rows["metric"], rows["variant"], strict=True))
    rows = rows.assign(score=[QUALITY.get(key, "") for key in keys])
    return rows[rows["score"] != ""]


def pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """CKA of layer h for every pair of arms at the last epoch, with a column `pair`."""
    found = last(rows[(rows["table"] == "test_alignment") & (rows["metric"] == "cka") & (rows["module"] == "h")])
    return found.assign(score="CKA", pair=[" ".join(sorted(each)) for each in found[["reference", "arm"]].to_numpy()])


def duality(rows: pd.DataFrame) -> Answer:
    """CKA of the dual pairs among all pairs without labels."""
    every = pairs(rows)
    inside = every[every["reference"].isin(WITHOUT_LABELS) & every["arm"].isin(WITHOUT_LABELS)]
    mean = by_seed(inside, "CKA", "pair").mean().sort_values(ascending=False)
    words = []
    for pair in DUAL:
        name = " ".join(sorted(pair))
        place = list(mean.index).index(name) + 1
        words.append(f"CKA of {pair[0]} and {pair[1]} is {mean[name]:.3f}, rank {place} of {len(mean)} pairs")
    nearest = mean.index[0].replace(" ", " and ")
    words.append(f"the most similar pair is {nearest} ({mean.iloc[0]:.3f})")
    words.append(f"the mean of all pairs is {mean.mean():.3f}")
    return Answer(over_seeds(last(qualities(rows)), ["arm"]), "; ".join(words))


def matrix(rows: pd.DataFrame) -> Figure:
    """Draw the CKA of every pair of arms, as mean over seeds."""
    every = pairs(rows)
    where = ["epoch", "reference", "arm", "module", "metric", "num_images"]
    mean = every.groupby(where, sort=False)["value"].mean().reset_index()
    return alignment_matrix(mean, list(dict.fromkeys([*every["reference"], *every["arm"]])))


def directpred(rows: pd.DataFrame) -> Answer:
    """Collapse with and without target network and weight decay; eigenspace alignment over training."""
    key = "optimizer.weight_decay"
    collapse = rows[rows["table"] == "collapse"]
    spread = collapse[(collapse["module"] == "z") & (collapse["metric"] == "spread")].assign(score="spread of z")
    rank = collapse[(collapse["module"] == "z") & (collapse["metric"] == "effective_rank")]
    rank = rank.assign(score="effective rank of z")
    aligned = collapse[collapse["metric"] == "eigenspace_alignment"]
    aligned = aligned[aligned["component"] <= FIRST]
    each = [key, "seed", "run", "arm", "epoch"]
    aligned = aligned.groupby(each, sort=False)["value"].mean().reset_index()
    early = aligned[aligned["epoch"] == 1].assign(score="W aligned with F, epoch 1")
    late = last(aligned).assign(score="W aligned with F, last")
    centres = qualities(rows)
    centres = centres[centres["score"] == "nearest centre"]
    found = pd.concat([last(spread), last(rank), last(centres), early, late])
    end = last(spread)
    gone = (end["value"] < COLLAPSED).groupby([end[key], end["arm"]]).agg(["sum", "count"]).reset_index()
    words = [
        f"{each['arm']} with weight decay {each[key]:g} in {each['sum']} of {each['count']} seeds"
        for each in gone[gone["sum"] > 0].to_dict("records")
    ]
    said = f"collapsed arms (spread of z below {COLLAPSED}): " + (", ".join(words) or "none")
    trained = [
        found[(found["arm"] == "byol") & (found["score"] == part)]["value"].mean()
        for part in ("W aligned with F, epoch 1", "W aligned with F, last")
    ]
    said += (
        f"; the alignment of byol's trained linear predictor with F's first {FIRST} directions is {trained[0]:.2f}"
        f" after the first epoch and {trained[1]:.2f} after the last"
    )
    return Answer(over_seeds(found, [key, "arm"]), said)


def supcon(rows: pd.DataFrame) -> Answer:
    """The `out` and `in` forms, and the number of positives."""
    found = last(qualities(rows))
    probe = by_seed(found, "linear probe", "arm")
    out_wins = int((probe["out"] > probe["in"]).sum())
    order = probe[["out_1", "out_3", "out_5", "out"]].mean()
    counts = ", ".join(f"{value:.3f} ({name})" for name, value in zip(("1", "3", "5", "all"), order, strict=True))
    verdict = (
        f"the linear probe of `out` is better than that of `in` in {out_wins} of {len(probe)} seeds (means"
        f" {probe['out'].mean():.3f} and {probe['in'].mean():.3f}); linear probe by number of positives: {counts}"
    )
    likeness = pairs(rows)
    likeness = likeness[likeness["reference"] == "out"].assign(score="CKA with out")
    return Answer(over_seeds(pd.concat([found, likeness]), ["arm"]), verdict)


CLAIMS: Mapping[str, Claim] = {
    "10": Claim("Alignment of dual objectives", "duality", "matrix", duality, matrix),
    "11": Claim("Collapse without negatives", "directpred", "", directpred),
    "12": Claim("SupCon `out` and `in`, and the number of positives", "supcon", "", supcon),
}
