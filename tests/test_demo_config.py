"""The demo's numbers: all pages agree, and for each of three seeds NSCL ends closer to CL than SCL and CE do."""

import re
from pathlib import Path

import pytest
from support import tiny
from support.page_numbers import SIMILARITIES, Values, rounds, rounds_mean, tables

ARMS = ("nscl", "scl", "ce")
SCORES = {"CKA": "CKA", "RSA": "RSA", "weight gap, mean over layers": "weight gap"}
SCORES["weight gap, all weights as one vector"] = "global weight gap"
VALUES = Values(tiny.REPOSITORY / "docs/reproduction/classifiers.csv", "demo")  # changed settings: measure it again

TWO_THREADS = Values(tiny.REPOSITORY / "docs/reproduction/classifiers_two_threads.csv", "demo")
CIFAR10 = Values(tiny.REPOSITORY / "docs/reproduction/cifar10.csv", "cifar10")


@pytest.mark.parametrize("values", [VALUES, TWO_THREADS], ids=["one thread", "two threads"])
def test_nscl_is_closest_to_cl_for_every_measured_seed(values: Values) -> None:
    for score in SCORES.values():
        nscl, *others = (values.by_seed(score, arm=arm) for arm in ARMS)
        assert nscl.keys() == {"0", "1", "2"}
        sign = 1 if score in SIMILARITIES else -1
        assert all(sign * (nscl[seed] - other[seed]) > 0 for other in others for seed in nscl)


def test_the_page_has_the_numbers_of_two_threads() -> None:
    """No block of the page has them."""
    text = " ".join((tiny.REPOSITORY / "docs/reproduction.md").read_text(encoding="utf-8").split())
    (found,) = re.findall(r"gave a CKA of (\S+), (\S+) and (\S+) for NSCL \(above: (\S+), (\S+) and (\S+)\)", text)
    seeds = [each for values in (TWO_THREADS, VALUES) for each in values.by_seed("CKA", arm="nscl").values()]
    assert all(rounds(number, seed) for number, seed in zip(found, seeds, strict=True))


def test_the_readme_has_the_numbers_of_the_seeds() -> None:
    """If two copies of a measured number differ, one is wrong."""
    text = (tiny.REPOSITORY / "README.md").read_text(encoding="utf-8")
    cifar10, demo = (each for each in tables(text) if "weight gap, mean over layers" in each[0])
    assert [row["arm"].strip("`") for row in demo] == [*ARMS]
    assert [row["arm"].strip("`") for row in cifar10[:-1]] == [*ARMS]
    assert cifar10[-1]["arm"].startswith("a CL with its own initialisation")
    for values, rows in ((VALUES, demo), (CIFAR10, cifar10)):
        for arm, row in zip([*ARMS, "cl_other"], rows, strict=False):
            for column, score in SCORES.items():
                assert rounds_mean(row[column], [*values.by_seed(score, arm=arm).values()]), (arm, column)


def test_the_readme_has_the_floor_beside_each_table() -> None:
    """Without it the distances of NSCL would be read as an effect of its objective."""
    text = " ".join((tiny.REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    found = re.findall(r"rounding error ends as far away: CKA (\S+ \+- \S+), mean gap (\S+ \+- \.\d+)", text)
    for (cka, gap), values in zip(found, (CIFAR10, VALUES), strict=True):
        assert rounds_mean(cka, [*values.by_seed("CKA", arm="cl_moved").values()])
        assert rounds_mean(gap, [*values.by_seed("weight gap", arm="cl_moved").values()])


def test_the_demo_and_its_measured_runs_have_the_same_settings() -> None:
    """Its tables are of the sweep classifiers, which adds a floor, a ceiling and the number of threads."""
    sweep = Path(tiny.REPOSITORY / "configs/reproduction/classifiers.yaml").read_text(encoding="utf-8")
    assert "base: ../demo.yaml\n" in sweep
    overrides = re.findall(r"^  ([\w.]+): ", sweep.split("overrides:\n")[1], flags=re.MULTILINE)
    assert overrides == ["num_threads", "arms.cl_moved", "arms.cl_other"]


def test_the_demo_file_has_no_measured_scores() -> None:
    """They would be another copy."""
    text = (tiny.REPOSITORY / "configs/demo.yaml").read_text(encoding="utf-8")
    assert not re.search(r"\+-|CKA \.\d", text)
