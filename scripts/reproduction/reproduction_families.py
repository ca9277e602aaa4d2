"""Claims 13 to 15 of docs/reproduction.md: the path from CL to NSCL, other families, and classifiers of the arms.

The functions have the form of those of reproduction_claims.py.
"""

from collections.abc import Mapping

import pandas as pd
import reproduction_distances as distances
from matplotlib.figure import Figure
from reproduction_figures import against, points
from reproduction_objectives import pairs, qualities
from reproduction_statistics import Answer, Claim, by_seed, difference_row, last, over_seeds, paired, wide
from reproduction_trends import SCORES
from reproduction_values import GAP

PATHS = {"share": "share of known labels (%)", "noise": "noisy labels (%)", "groups": "groups of classes"}
ENDS = {"share": 100, "noise": 0, "groups": 10}  # which point of a path `nscl` is
FAMILIES = ("moco", "byol", "swav", "dino")
WITH_NSCL = "CKA with nscl"
MATCHED = "weight gap, channels matched"
BARRIERS = (
    "lost accuracy between the weights",
    "lost accuracy, channels matched",
    "NSCL barrier (nats)",
    "NSCL barrier, channels matched (nats)",
)
CALIBRATION = "calibration error of the probe"
CLASSIFIERS = (CALIBRATION, "mCE", GAP, MATCHED, *BARRIERS)


def _on_paths(values: pd.DataFrame) -> pd.DataFrame:
    final = last(distances.of_cl(values, SCORES))
    parts = final["arm"].str.extract(r"^(?P<path>share|noise|groups)_(?P<labels>\d+)$")
    known = final.assign(path=parts["path"], labels=pd.to_numeric(parts["labels"])).dropna(subset=["path"])
    ends = [final[final["arm"] == "nscl"].assign(path=path, labels=value) for path, value in ENDS.items()]
    every = pd.concat([known, *ends]).astype({"labels": int})
    every = every.sort_values("path", key=lambda paths: paths.map(list(PATHS).index), kind="stable")
    return every.assign(path=every["path"].map(PATHS))


def bridge(values: pd.DataFrame) -> Answer:
    """Alignment and weight gap with CL against the labels that an arm of NSCL sees."""
    every, sentences, rows = _on_paths(values), [], []
    for path, chosen in every.groupby("path", sort=False):
        for score in SCORES:
            table = by_seed(chosen, score, "labels")
            order = table.rank(axis=1).corrwith(pd.Series(table.columns, table.columns), axis=1, method="spearman")
            mean = table.mean()
            first, final = table.columns[0], table.columns[-1]
            sentences.append(
                f"{path} {first} to {final}: {score} from {mean.iloc[0]:.3f} to {mean.iloc[-1]:.3f}, rank correlation"
                f" {order.min():.2f} to {order.max():.2f} over the seeds"
            )
            label = {"path": f"{path}: {final} minus {first}", "score": score}
            rows.append({**label, **difference_row(table[final] - table[first])})
    share = every[every["path"] == PATHS["share"]]
    few = {score: by_seed(share, score, "labels") for score in SCORES}
    rows += [
        {"path": "share of known labels: 5 minus 100", "score": score, **difference_row(table[5] - table[100])}
        for score, table in few.items()
    ]
    from_floor = _from_floor(every, last(distances.of_cl(values, SCORES)))
    sentences += [sentence for sentence, _ in from_floor.values()]
    coarse = by_seed(every[every["path"] == PATHS["groups"]], "CKA", "labels")
    gap = few[GAP].mean()
    summary = (
        f"with 5 % of the labels the weight gap is {100 * gap[5] / gap[100]:.0f} % of that with all; two"
        f" groups of classes have a CKA of {coarse[2].mean():.2f}, ten {coarse[10].mean():.2f}"
    )
    if from_floor:
        where = "; ".join(f"{score}: {from_floor[score][1]}" for score in ("CKA", GAP))
        summary += f"; differing from the floor beyond the interval: {where}"
    tables = {
        "": wide(over_seeds(every, ["path", "labels"])),
        "Differences within a seed": pd.DataFrame(rows),
    }
    return Answer(summary, sentences, tables)


def _from_floor(every: pd.DataFrame, final: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """For each score a sentence with floor and ceiling, and the points of the paths that differ from the floor."""
    told = {}
    for score in SCORES:
        arms = by_seed(final, score, "arm")
        if not {distances.FLOOR, distances.CEILING} <= {*arms}:
            continue
        floor, ceiling = arms[distances.FLOOR], arms[distances.CEILING]
        from_floor = _apart(every, arms, floor)
        sentence = (
            f"{score}: floor {floor.mean():.3f}, ceiling {ceiling.mean():.3f}, floor minus ceiling"
            f" {paired(list(floor - ceiling)).text()}; differing beyond the interval from the floor: {from_floor}; from"
            f" the ceiling: {_apart(every, arms, ceiling)}"
        )
        told[score] = sentence, from_floor
    return told


def _apart(every: pd.DataFrame, arms: pd.DataFrame, other: "pd.Series[float]") -> str:
    """The points of the paths that differ from `other` beyond the interval, without CL itself."""
    apart = dict[str, list[str]]()
    for path, chosen in every[every["arm"] != "share_0"].groupby("path", sort=False):
        for labels, arm in sorted({*zip(chosen["labels"], chosen["arm"], strict=True)}):
            if paired(list(arms[arm] - other)).direction():
                apart.setdefault(str(path), []).append(str(labels))
    return ", ".join(f"{path} at {', '.join(at)}" for path, at in apart.items()) or "none"


def draw_bridge(values: pd.DataFrame) -> Figure:
    """Distances from CL against the labels, a colour for each path; groups are a share of the ten classes."""
    every = _on_paths(values)
    is_groups = every["path"] == PATHS["groups"]
    every = every.assign(labels=every["labels"].where(~is_groups, 10 * every["labels"]))
    every = every.assign(path=every["path"].where(~is_groups, "groups, % of the ten classes"))
    label = "% (labels known, labels noisy, groups)"
    title = "NSCL with fewer labels against CL on digits after the last epoch; layer h, test images"
    levels = last(distances.of_cl(values, SCORES))
    return against(every, "labels", SCORES, series="path", title=title, label=label, levels=levels)


def families(values: pd.DataFrame) -> Answer:
    """Distance of other self-supervised objectives from CL and from NSCL."""
    of_cl, every = last(distances.of_cl(values, SCORES)), pairs(values)
    ends = [every[every["reference"] == "nscl"], every[every["arm"] == "nscl"].assign(arm=every["reference"])]
    of_nscl = pd.concat(ends).assign(score=WITH_NSCL)
    sentences, rows, nearer, farther = [], [], [], []
    for arm in FAMILIES:
        one, other = by_seed(of_cl, "CKA", "arm")[arm], by_seed(of_nscl, WITH_NSCL, "arm")[arm]
        side = paired(list(one - other))
        sentences.append(
            f"{arm}: CKA {one.mean():.3f} with cl and {other.mean():.3f} with nscl, nearer to cl in"
            f" {int((one > other).sum())} of {len(one)} seeds, difference {side.text()}"
        )
        if side.direction() > 0:
            nearer.append(arm)
        for score in SCORES:
            table, sign = by_seed(of_cl, score, "arm"), 1 if score in distances.SIMILARITIES else -1
            lost = sign * (table["nscl"] - table[arm])
            rows.append({"score": score, "NSCL nearer than": arm, **difference_row(lost)})
            if score == "CKA" and paired(list(lost)).direction() > 0:
                farther.append(arm)
    summary = (
        f"farther from CL than NSCL is, beyond the interval of CKA: {distances.joined(farther) if farther else 'none'};"
        f" nearer to CL than to NSCL: {distances.joined(nearer) if nearer else 'none'}. {distances.summary(values)}"
    )
    order = ("cl", distances.FLOOR, *distances.ARMS, *FAMILIES, distances.CEILING)
    table = pd.concat([of_cl, of_nscl, qualities(values)])
    table = table[table["arm"].isin(order)].sort_values("arm", key=lambda arms: arms.map(order.index), kind="stable")
    scores = [*SCORES, WITH_NSCL, *dict.fromkeys(qualities(values)["score"])]
    shown = wide(over_seeds(table, ["arm"]))
    tables = {
        "After the last epoch": shown[["arm", *scores, "seeds"]],
        "How much nearer NSCL is to CL than the other families are, within a seed": pd.DataFrame(rows),
        "NSCL against SCL and CE over all measured epochs": distances.nearest(values),
        "Between floor (0) and ceiling (1) after the last epoch": distances.between(values),
    }
    return Answer(summary, [*sentences, *distances.sentences(values)], tables)


def draw_families(values: pd.DataFrame) -> Figure:
    """Distances from CL over the epochs."""
    arms = (*distances.ARMS, *FAMILIES, distances.FLOOR, distances.CEILING)
    return distances.draw(values, "Distance from CL on digits; layer h, test images", arms)


def classifiers(values: pd.DataFrame) -> Answer:
    """Calibration, errors on corrupted images, and weight gap and barrier between an arm and CL."""
    chosen = _of_classifiers(values)
    words, rows = [], []
    beyond: dict[str, list[str]] = {arm: [] for arm in distances.ARMS}
    for name in CLASSIFIERS:
        table = by_seed(chosen, name, "arm")
        least = table[list(distances.ARMS)].idxmin(axis=1).value_counts()
        words.append(f"{name}: the smallest is that of {least.index[0]} in {int(least.iloc[0])} of {len(table)} seeds")
        for arm in distances.ARMS:
            more = table[arm] - table[distances.FLOOR]
            rows.append({"score": name, "arm": arm, **difference_row(more)})
            if paired(list(more)).direction():
                beyond[arm].append(name)
    beyond = {arm: [name.replace(", ", " with ") for name in names] for arm, names in beyond.items()}
    told = "; ".join(f"{arm}: {', '.join(names) or 'none'}" for arm, names in beyond.items())
    short = []
    for name in (CALIBRATION, "mCE"):
        table = by_seed(chosen, name, "arm")
        side = paired(list(table["scl"] - table["ce"]))
        words.append(f"{name}: scl minus ce, which the paper compares: {side.text()}")
        short.append(
            f"{name} {({1: 'above', -1: 'below', 0: 'not distinguishable from'})[side.direction()]} that of ce"
        )
    tables = {
        "": wide(over_seeds(chosen, ["arm"])),
        "Arm minus the noise floor cl_moved, within a seed": pd.DataFrame(rows),
        "NSCL against SCL and CE over all epochs": distances.nearest(values),
    }
    summary = f"scl has a {' and an '.join(short)}; differs from the noise floor beyond the interval: {told}"
    return Answer(summary, words, tables)


def _of_classifiers(values: pd.DataFrame) -> pd.DataFrame:
    others = last(values[values["score"].isin(CLASSIFIERS)])
    others = others.sort_values("score", key=lambda scores: scores.map(CLASSIFIERS.index), kind="stable")
    order = ("cl", *distances.ARMS, distances.FLOOR, distances.CEILING)
    both = pd.concat([qualities(values), others])
    return both[both["arm"].isin(order)].sort_values("arm", key=lambda a: a.map(order.index), kind="stable")


def draw_classifiers(values: pd.DataFrame) -> Figure:
    """Calibration, corruption and barriers of every arm."""
    scores = (CALIBRATION, "mCE", GAP, MATCHED, BARRIERS[0], BARRIERS[2])
    return points(
        _of_classifiers(values), "arm", scores, title="Classifiers and barriers in the demo; layer h, test images"
    )


CLAIMS: Mapping[str, Claim] = {
    "13": Claim("The path from CL to NSCL", "bridge", bridge, draw_bridge),
    "14": Claim("Other families between CL and NSCL", "families", families, draw_families),
    "15": Claim("Calibration, corruptions and barriers", "classifiers", classifiers, draw_classifiers),
}
