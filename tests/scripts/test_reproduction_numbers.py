"""Every mean, deviation, difference and count in the tables of docs/reproduction.md, to its last printed digit."""

import csv
import itertools
import random
import re
from pathlib import Path

import pytest
import reproduce
import reproduction_cifar10 as cifar10
import reproduction_page as page
from reproduction_families import FAMILIES
from reproduction_objectives import WITHOUT_LABELS
from reproduction_values import ALIGNED, COLUMNS, CORRELATION, EXPLODES, SATURATES, SELECTIONS
from support.page_numbers import FACTOR, wrong

TEXT = reproduce.PAGE.read_text(encoding="utf-8")
SWEEPS = {number: claim.sweep for number, claim in page.CLAIMS.items()}
CASES = {  # factors of a sweep; more than the page needs would do no harm
    "temperature": {"temperature": (0.1, 1.0)},
    "classes": {"dataset.classes": (2, 10, 100)},
    "batch_size": {"batch.size": (64, 128), "optimizer.lr_scaling": ("linear", "sqrt")},
    "epochs": {"epochs": (10, 40)},
    "directpred": {"optimizer.weight_decay": (0.0, 1e-4)},
    **{sweep: {factor: (2, 10)} for sweep, (factor, _, _) in cifar10.FACTORS.items()},
    "cifar10_gpu": {"encoder.name": ("resnet18", "resnet50")},
}
FOUR = ("cl", "nscl", "scl", "ce", "cl_moved", "cl_other")
ARMS = {  # of sweeps with other arms
    "bridge": ("cl", "nscl", "cl_moved", "cl_other", "share_0", "share_5", "noise_90", "groups_2"),
    "controls": (*FOUR, "nscl_init", "nscl_order", "nscl_views"),
    "directpred": ("byol", "byol_own"),
    "duality": ("nscl", *WITHOUT_LABELS),
    "families": (*FOUR, *FAMILIES),
    "supcon": ("out", "in", "out_1", "out_3", "out_5", "ce"),
}
OF_ARMS = {"quality", "collapse", "loss_gap", "loss_correlation", "bounds"}
SEEDS = (0, 1, 2)


def write_values(path: Path) -> None:
    """Values of a sweep for all scores and arms, without regularity."""
    numbers = random.Random(path.stem)
    factors, arms = CASES.get(path.stem, {}), ARMS.get(path.stem, FOUR)
    cases = [dict(zip(factors, case, strict=True)) for case in itertools.product(*factors.values())]
    rows: list[dict[str, object]] = []
    for case, seed in itertools.product(cases, SEEDS):
        last = case.get("epochs", 20)
        for (score, table, _), arm in itertools.product(SELECTIONS, arms):
            row = {**case, "seed": seed, "arm": arm, "score": score}
            if table not in OF_ARMS:
                row["reference"] = "cl"
            more: list[dict[str, object]] = [{}]
            if table == "bounds":
                more = [{"task": task, "shots": shots} for task in ("all", "two_way") for shots in (1, 5)]
            elif score == ALIGNED:
                more = [{"component": component} for component in (1, 2)]
            epochs = [""] if score in (CORRELATION, SATURATES, EXPLODES) else [0, 1, 2, 5, last]
            rows += [{**row, "epoch": epoch, **each} for epoch in epochs for each in more]
        pairs = itertools.combinations(arms, 2) if path.stem in ("duality", "families", "supcon") else ()
        rows += [
            {"seed": seed, "epoch": last, "reference": one, "arm": other, "score": "CKA"}
            for one, other in pairs
            if one != "cl"  # which has its rows already
        ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*factors, *COLUMNS])
        writer.writeheader()
        writer.writerows({**row, "value": f"{numbers.uniform(0.1, 0.9):.6g}"} for row in rows)


def test_every_number_of_the_page_has_the_digits_of_its_values() -> None:
    """A table of an earlier measurement, or a mean over the wrong rows, would be published."""
    found, counts = wrong(TEXT, reproduce.RESULTS, SWEEPS)
    assert found == []
    without = {"costs", "classifiers_two_threads", cifar10.FLOOR_SWEEP}  # no table of the page is of them
    measured = {path.stem for path in reproduce.RESULTS.glob("*.csv")} - without
    assert {SWEEPS.get(name.partition(" ")[2], name.split()[0]) for name in counts} - {"demo"} == measured
    assert all(counts[f"claim {number}"] >= 10 for number, sweep in SWEEPS.items() if sweep in measured)


@pytest.mark.slow
def test_one_changed_digit_of_the_page_is_noticed() -> None:
    """Of a mean, a deviation, an interval, an effect size and a share of the way, in the last digit."""
    claim = TEXT.index("<!-- claim 14 -->")
    place = TEXT.index(" +- ", claim)
    row = re.compile(r"\| CKA \| byol \| \S+ \| \S+ to (\S+) \| (\S+) \| (\S+) to (\S+) \|").search(TEXT, claim)
    share = re.compile(r"\| weight gap \| nscl \| (?:\S+ \| ){3}(\S+) \|").search(TEXT, claim)
    assert row
    assert share
    for end in (place - 1, place + 8, *(row.end(group) - 1 for group in range(1, 5)), share.end(1) - 1):
        digit = str((int(TEXT[end]) + 1) % 10)
        assert len(wrong(TEXT[:end] + digit + TEXT[end + 1 :], reproduce.RESULTS, SWEEPS)[0]) == 1


@pytest.mark.parametrize("sweep", sorted({*SWEEPS.values(), *cifar10.SWEEPS}))
def test_the_tables_of_every_sweep_are_compared_as_soon_as_it_is_measured(sweep: str, tmp_path: Path) -> None:
    """On values without regularity: a table that is not recognised would have no cells."""
    write_values(tmp_path / f"{sweep}.csv")
    names = [f"claim {number}" for number, of in SWEEPS.items() if of == sweep]
    names += [f"{sweep} {table}" for table in ("last", "nearest", "paired", "between") if sweep in cifar10.SWEEPS]
    names += [f"cifar10 {table}" for table in ("losses", "bounds", "shots", "growth") if sweep == cifar10.SWEEP]
    names += ["demo last", "demo seeds"] * (sweep == page.DEMO)
    names += [f"{sweep} trend"] * (sweep in cifar10.FACTORS)
    text = page.filled("".join(f"<!-- {name} -->\n<!-- end -->\n" for name in names), tmp_path)
    found, counts = wrong(text, tmp_path, SWEEPS)
    assert found == []
    assert {name: count > 3 for name, count in counts.items()} == dict.fromkeys(names, True)
    assert sweep not in FACTOR or {*CASES[sweep]} >= {FACTOR[sweep]}
