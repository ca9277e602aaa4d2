"""The numbers of docs/reproduction.md, computed again from docs/reproduction/<sweep>.csv with lists and the standard
library. `wrong` names every cell whose printed digits differ.
"""

import csv
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.page_statistics import half_width, intervals, rounds, rounds_each, rounds_mean

Row = dict[str, str]

SIMILARITIES = ("CKA", "RSA")
ARM_OF = {"temperature": "nscl", "batch_size": "nscl", "epochs": "nscl", "classes": "nscl", "claim 6": "cl"}
FACTOR = {
    "temperature": "temperature",
    "classes": "dataset.classes",
    "batch_size": "batch.size",
    "epochs": "epochs",
    "cifar10_temperature": "temperature",
    "cifar10_classes": "dataset.classes",
    "cifar10_batch_size": "batch.size",
    "cifar10_gpu": "encoder.name",
}
PATHS = {"share of known labels": "share", "noisy labels": "noise", "groups of classes": "groups"}
BETWEEN = {"floor": "cl_moved", "nscl": "nscl", "ceiling": "cl_other"}
WHOLE_PATHS = {"share_100", "noise_0", "groups_10"}  # where a path ends at NSCL itself
SOURCES = {"everything": "nscl", "unshared init": "nscl_init", "unshared order": "nscl_order"}
SOURCES["unshared views"] = "nscl_views"
# words for a task -> the task, and where a bound is vacuous
WORDS = {"among ten classes": ("all", 1.0), "between two classes": ("two_way", 0.5)}
NOT_SCORES = {"arm", "path", "labels", "shares", "epoch", "task", "shots", "seeds", "score"}


def blocks(text: str, sweeps: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield name, sweep and body of every filled block; `sweeps` has the sweep of each number of a claim."""
    for name, body in re.findall(r"<!-- ((?:claim|cifar10|demo)[^\n]*?) -->\n(.*?)<!-- end -->", text, flags=re.DOTALL):
        kind, _, number = name.partition(" ")
        yield name, sweeps[number] if kind == "claim" else "classifiers" if kind == "demo" else kind, body


def tables(body: str) -> Iterator[list[Row]]:
    """Yield the rows of each Markdown table, by the names of the columns."""
    for found in re.findall(r"(?:^\|.*\n)+", body, flags=re.MULTILINE):
        header, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in found.splitlines())
        yield [dict(zip(header, row, strict=True)) for row in rows]


class Values:
    """The values of every seed of a sweep."""

    def __init__(self, path: Path, name: str) -> None:
        self.sweep, self.name = path.stem, name
        with path.open(encoding="utf-8", newline="") as file:
            self.rows = [{"reference": "", **row} for row in csv.DictReader(file)]
        self.keys = self.rows[0].keys()
        self.of_score: dict[str, list[Row]] = {}
        for row in self.rows:
            self.of_score.setdefault(row["score"], []).append(row)

    def by_seed(self, score: str, pair: Sequence[str] = (), **where: str) -> dict[str, float]:
        """The value of each seed after the last epoch of the score, or after `epoch`; components are averaged.

        `pair` are two arms in any order; without it the reference is `cl`, or none.
        """
        every = chosen = self.of_score.get(score, [])
        chosen = [row for row in chosen if all(same(row[key], value) for key, value in where.items() if key != "epoch")]
        if pair:
            chosen = [row for row in chosen if {row["reference"], row["arm"]} == {*pair}]
        else:
            chosen = [row for row in chosen if row["reference"] in ("", "cl")]
        last = max((float(row["epoch"] or 0) for row in every), default=0.0)
        found: dict[str, list[float]] = {}
        for row in chosen:
            wanted = where.get("epoch", row.get("epochs", str(last)))
            if same(row["epoch"] or wanted, wanted):
                found.setdefault(row["seed"], []).append(float(row["value"]))
        return {seed: statistics.fmean(values) for seed, values in found.items()}

    def of(self, column: str, row: Row) -> dict[str, float]:
        """The values behind a cell "mean +- sd" in `column`."""
        where = {key: cell for key, cell in row.items() if key in self.keys and key != "score"}
        if arm := arm_of(row) or ARM_OF.get(self.name, ARM_OF.get(self.sweep, "")):
            where["arm"] = arm
        if with_ := re.fullmatch(r"CKA with (\w+)", column):
            arm = where.pop("arm")
            return {} if arm == with_[1] else self.by_seed("CKA", (with_[1], arm), **where)
        if aligned := re.fullmatch(r"(W aligned with F), (epoch 1|last)", column):
            return self.by_seed(aligned[1], **where, **({"epoch": "1"} if aligned[2] == "epoch 1" else {}))
        return self.by_seed(column, **where)

    def differences(self, row: Row) -> list[float]:
        """The differences within a seed behind a row with the column "each seed"."""
        score, factor = row.get("score", "CKA"), FACTOR.get(self.sweep, "")
        where = {key: row[key] for key in ("epoch", factor, "optimizer.lr_scaling") if key in row}
        if "NSCL nearer than" in row:
            sign = 1 if score in SIMILARITIES else -1
            return minus(*(self.by_seed(score, arm=arm, **where) for arm in ("nscl", row["NSCL nearer than"])), sign)
        if ends := re.fullmatch(r"(.*?)(?: \(%\))?: (\d+) minus (\d+)", row.get("path", "")):
            arms = [arm_of({"path": ends[1], "labels": label}) for label in ends.groups()[1:]]
            return minus(*(self.by_seed(score, arm=arm) for arm in arms))
        if "shares" in row:
            return minus(*(self.by_seed(score, arm=arm) for arm in (SOURCES[row["shares"]], "nscl")))
        if "pair" in row:
            return self.of_pair(row["pair"].split(", "))
        arm = row.get("arm", "nscl")
        if factor:
            cases = sorted({each[factor] for each in self.rows}, key=lambda case: (number(case) or 0, case))
            return minus(*(self.by_seed(score, arm=arm, **where, **{factor: case}) for case in (cases[-1], cases[0])))
        return minus(*(self.by_seed(score, arm=each) for each in (arm, "cl_moved")))

    def of_pair(self, pair: Sequence[str]) -> list[float]:
        """CKA of a pair minus the mean of all other pairs of objectives without labels."""
        known = {frozenset((row["reference"], row["arm"])) for row in self.of_score["CKA"]}
        labelled = {"nscl", "scl", "ce", "supcon"}
        others = [self.by_seed("CKA", [*each]) for each in known if not each & labelled and each != {*pair}]
        here = self.by_seed("CKA", pair)
        return [here[seed] - statistics.fmean(other[seed] for other in others) for seed in here]

    def nearest(self, score: str, **where: str) -> list[str]:
        """In how many epochs and seeds NSCL is nearer to CL than SCL and CE; in how many seeds always; when not."""
        at: dict[tuple[str, float], dict[str, float]] = {}
        for row in self.of_score[score]:
            here = row["reference"] == "cl" and float(row["epoch"]) > 0
            if here and all(same(row[key], value) for key, value in where.items()):
                at.setdefault((row["seed"], float(row["epoch"])), {})[row["arm"]] = float(row["value"])
        sign = 1 if score in SIMILARITIES else -1
        missed = [
            place for place, arms in at.items() if any(sign * (arms["nscl"] - arms[arm]) <= 0 for arm in ("scl", "ce"))
        ]
        seeds = {seed for seed, _ in at}
        epochs = ", ".join(f"{epoch:g}" for epoch in sorted({epoch for _, epoch in missed}))
        always = f"{len(seeds - {seed for seed, _ in missed})} of {len(seeds)}"
        return [f"{len(at) - len(missed)} of {len(at)}", always, epochs or "none"]

    def bounds(self, form: str, task: str, vacuous: float) -> list[str]:
        """In how many cases a bound is not vacuous, in how many of these it holds, and its smallest quotient."""
        last = max(float(row["epoch"]) for row in self.of_score[form])
        cases: dict[tuple[str, str, str], list[float]] = {}
        for score in (form, "measured error"):
            for row in self.of_score[score]:
                if row["task"] == task and row["arm"] in ("cl", "nscl") and float(row["epoch"]) == last:
                    cases.setdefault((row["arm"], row["shots"], row["seed"]), []).append(float(row["value"]))
        says = [(bound, error) for bound, error in cases.values() if bound < vacuous]
        holds = sum(bound >= error for bound, error in says)
        smallest = f"{min(bound / error for bound, error in says):.1f}" if says else ""
        return [f"{len(says)} of {len(cases)}", f"{holds} of {len(says)}", smallest]


def compared(values: Values, row: Row) -> Iterator[tuple[str, str, bool]]:
    """Yield column, printed text, and whether it has the digits of its values, for every number of a row."""
    if "seeds" in row and "fit of the logarithms" not in row:
        known = {column: [*values.of(column, row).values()] for column in row.keys() - NOT_SCORES - {*values.keys}}
        for column, seeds in known.items():
            yield column, row[column], rounds_mean(row[column], seeds)
        yield "seeds", row["seeds"], row["seeds"] == str(max(map(len, known.values())))
    elif "each seed" in row and "difference" in row:
        seeds = values.differences(row)
        yield "difference", row["difference"], rounds(row["difference"], statistics.fmean(seeds))
        yield "each seed", row["each seed"], rounds_each(row["each seed"], seeds)
        for column, known in intervals(row, seeds).items():
            yield column, row[column], known
    elif "nscl minus floor" in row:
        where = {key: row[key] for key in values.keys if key in row and key != "score"}
        arms = {name: values.by_seed(row["score"], arm=arm, **where) for name, arm in BETWEEN.items()}
        for name, seeds in arms.items():
            if seeds:
                yield name, row[name], rounds(row[name], statistics.fmean(seeds.values()))
        for name in [name for name in ("floor", "ceiling") if arms[name]]:
            seeds = minus(arms["nscl"], arms[name])
            text, effect = row[f"nscl minus {name}"], row[f"effect, {name}"]
            difference, interval = text.rstrip(")").split(" (")
            of_sd, its_interval = effect.rstrip(")").split(" (")
            cells = {"95 % interval": interval, "difference / sd": of_sd, "its 95 % interval": its_interval}
            yield f"nscl minus {name}", text, rounds(difference, statistics.fmean(seeds))
            yield from ((f"{column}, {name}", cells[column], good) for column, good in intervals(cells, seeds).items())
    elif "seed" in row:
        for score in row.keys() - {"seed", "arm"}:
            yield score, row[score], rounds(row[score], values.by_seed(score, arm=row["arm"])[row["seed"]])
    elif "floor" in row:
        where = {key: row[key] for key in values.keys if key in row and key not in ("arm", "score")}
        arms = [values.by_seed(row["score"], arm=arm, **where) for arm in ("cl_moved", row["arm"], "cl_other")]
        for column, seeds in zip(("floor", "arm's mean", "ceiling"), arms, strict=True):
            yield column, row[column], rounds(row[column], statistics.fmean(seeds.values()))
        sign = 1 if row["score"] in SIMILARITIES else -1
        moved, width = minus(arms[0], arms[1], sign), minus(arms[0], arms[2], sign)
        share, each = row["share of the way from floor to ceiling"], row["each seed"]
        if len(width) > 1 and statistics.fmean(width) > half_width(width):
            yield "share", share, rounds(share, statistics.fmean(moved) / statistics.fmean(width))
            yield "each seed", each, rounds_each(each, [one / all_ for one, all_ in zip(moved, width, strict=True)])
        else:
            yield "share", share, share == each == "undefined"
    elif "NSCL nearest, epochs x seeds" in row:
        where = {key: row[key] for key in values.keys if key in row and key != "score"}
        columns = [column for column in row if column not in {*where, "score"}]
        for column, known in zip(columns, values.nearest(row["score"], **where), strict=True):
            yield column, row[column], row[column] == known
    elif "vacuous from" in row:
        task, vacuous = WORDS[row["task"]]
        yield "vacuous from", row["vacuous from"], float(row["vacuous from"]) == vacuous
        for column, known in zip([*row][3:], values.bounds(row["bound"], task, vacuous), strict=True):
            yield column, row[column], row[column] == known


def wrong(text: str, results: Path, sweeps: dict[str, str]) -> tuple[list[str], dict[str, int]]:
    """Return the cells that differ from their values, and how many cells of each block were compared."""
    found, counts = list[str](), dict[str, int]()
    for name, sweep, body in blocks(text, sweeps):
        path = results / f"{sweep}.csv"
        if path.is_file():
            values = Values(path, name)
            cells = [(row, *cell) for rows in tables(body) for row in rows for cell in compared(values, row)]
            counts[name] = len(cells)
            found += [f"{name}: {column} of {row}" for row, column, _, good in cells if not good]
    return found, counts


def arm_of(row: Row) -> str:
    """The arm that a row of the page is about."""
    if "path" in row:
        arm = f"{PATHS[row['path'].removesuffix(' (%)')]}_{row['labels']}"
        return "nscl" if arm in WHOLE_PATHS else arm
    return SOURCES[row["shares"]] if "shares" in row else row.get("arm", "")


def minus(one: dict[str, float], other: dict[str, float], sign: int = 1) -> list[float]:
    """The differences within a seed."""
    assert one
    assert one.keys() == other.keys()
    return [sign * (one[seed] - other[seed]) for seed in one]


def number(text: str) -> float | None:
    """The text as a number, if it is one."""
    try:
        return float(text)
    except ValueError:
        return None


def same(one: str, other: str) -> bool:
    """Whether two cells are the same number or text."""
    return one == other or (one[:1] in "-.0123456789" and number(one) is not None and number(one) == number(other))
