"""Claims 13 to 15 of docs/reproduction.md: the path from CL to NSCL, other families, and classifiers of the arms.

Rows and answers have the format of reproduction_claims.py.
"""

from collections.abc import Mapping

import pandas as pd
from reproduction_claims import Answer, Claim, by_seed, last, over_seeds, scores
from reproduction_objectives import qualities

from coupled.analysis.tables import whole_encoder

PATHS = {"share": "share of known labels (%)", "noise": "noisy labels (%)", "groups": "groups of classes"}
FAMILIES = ("moco", "byol", "swav", "dino")
ERRORS = {"mce": "mCE"}
GAPS = {"weight_gap": "weight gap", "weight_gap_permutation": "weight gap, channels matched"}
BARRIERS = {
    "nccc/none": "lost accuracy between the weights",
    "nccc/permutation": "lost accuracy, channels matched",
    "nscl/none": "NSCL barrier (nats)",
    "nscl/permutation": "NSCL barrier, channels matched (nats)",
}


def bridge(rows: pd.DataFrame) -> Answer:
    """Alignment and weight gap with CL against the labels that an arm of NSCL sees."""
    found = last(scores(rows))
    parts = found["arm"].str.extract(r"^(?P<path>share|noise|groups)_(?P<value>\d+)$")
    known = found.assign(path=parts["path"].map(PATHS), labels=pd.to_numeric(parts["value"]))
    ends = found[found["arm"] == "nscl"]
    same = [
        ends.assign(path=PATHS["share"], labels=100),
        ends.assign(path=PATHS["noise"], labels=0),
        ends.assign(path=PATHS["groups"], labels=10),
    ]
    every = pd.concat([known.dropna(subset=["path"]), *same]).sort_values(["path", "labels"])
    words = []
    for path, part in every.groupby("path", sort=False):
        for score in ("CKA", "weight gap"):
            values = by_seed(part, score, "labels")
            order = values.rank(axis=1).corrwith(pd.Series(values.columns, values.columns), axis=1, method="spearman")
            mean = values.mean()
            words.append(
                f"{path} {int(values.columns[0])} to {int(values.columns[-1])}: {score} from {mean.iloc[0]:.3f} to"
                f" {mean.iloc[-1]:.3f}, rank correlation {order.min():.2f} to {order.max():.2f} over the seeds"
            )
    table = over_seeds(every.assign(labels=every["labels"].astype(int)), ["path", "labels"])
    return Answer(table.sort_values(["path", "labels"], kind="stable"), "; ".join(words))


def families(rows: pd.DataFrame) -> Answer:
    """Distance of other self-supervised objectives from CL and from NSCL."""
    of_cl = last(scores(rows))
    of_nscl = last(rows[(rows["table"] == "test_alignment") & (rows["metric"] == "cka") & (rows["module"] == "h")])
    of_nscl = pd.concat(
        [of_nscl[of_nscl["reference"] == "nscl"], of_nscl[of_nscl["arm"] == "nscl"].assign(arm=of_nscl["reference"])]
    )
    of_nscl = of_nscl[~of_nscl["arm"].isin(["nscl"])].assign(score="CKA with nscl")
    table = pd.concat([of_cl, of_nscl, last(qualities(rows))])
    words = []
    for arm in FAMILIES:
        one, other = (by_seed(part[part["arm"] == arm], name, "arm")[arm] for part, name in _sides(of_cl, of_nscl))
        nearer = int((one > other).sum())
        words.append(
            f"{arm}: CKA {one.mean():.3f} with cl and {other.mean():.3f} with nscl, nearer to cl in {nearer} of"
            f" {len(one)} seeds"
        )
    return Answer(over_seeds(table, ["arm"]), "; ".join(words))


def _sides(of_cl: pd.DataFrame, of_nscl: pd.DataFrame) -> tuple[tuple[pd.DataFrame, str], tuple[pd.DataFrame, str]]:
    return (of_cl, "CKA"), (of_nscl, "CKA with nscl")


def classifiers(rows: pd.DataFrame) -> Answer:
    """Calibration, errors on corrupted images, and weight gap and barrier between an arm and CL."""
    calibration = rows[(rows["metric"] == "probe_calibration") & (rows["variant"] == "ece")]
    gaps = whole_encoder(rows[rows["table"].isin(GAPS) & (rows["metric"] == "gap")], "mean")
    errors = rows[(rows["table"] == "robustness_mce") & rows["metric"].isin(ERRORS)]
    heights = rows[(rows["table"] == "barrier_height") & rows["metric"].isin(BARRIERS)]
    table = pd.concat(
        [
            last(qualities(rows)),
            last(calibration.assign(score="calibration error of the probe")),
            last(errors.assign(score=errors["metric"].map(ERRORS))),
            last(gaps.assign(score=gaps["table"].map(GAPS))),
            last(heights.assign(score=heights["metric"].map(BARRIERS))),
        ]
    )
    words = []
    for name in (*ERRORS.values(), *GAPS.values(), *BARRIERS.values()):
        values = by_seed(table, name, "arm").drop(columns=["cl", "cl_moved", "cl_other"], errors="ignore")
        least = values.idxmin(axis=1).value_counts()
        words.append(f"{name}: the smallest is that of {least.index[0]} in {int(least.iloc[0])} of {len(values)} seeds")
    return Answer(over_seeds(table, ["arm"]), "; ".join(words))


CLAIMS: Mapping[str, Claim] = {
    "13": Claim("The path from CL to NSCL", "bridge", "options", bridge),
    "14": Claim("Other families between CL and NSCL", "families", "", families),
    "15": Claim("Calibration, corruptions and barriers", "classifiers", "", classifiers),
}
