"""The demo's numbers: all pages agree, and for each of three seeds NSCL ends closer to CL than SCL and CE do."""

import re
from statistics import mean, stdev

from support import tiny

ARMS = ("nscl", "scl", "ce")


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the rows that name an arm, of the tables below a heading."""
    text = (tiny.REPOSITORY / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return [row for row in cells if set(row) & set(ARMS)]


def of_seeds() -> dict[tuple[int, str], list[float]]:
    """Return CKA, RSA and both gaps by seed and arm. A change of the config requires the three runs again."""
    table = [row for row in rows("docs/reproduction.md", "The demo") if row[0].isdecimal()]
    return {(int(seed), arm): [*map(float, values)] for seed, arm, *values in table}


def test_nscl_is_closest_to_cl_for_every_measured_seed() -> None:
    measured = of_seeds()
    assert sorted(measured) == sorted((seed, arm) for seed in (0, 1, 2) for arm in ARMS)
    for seed in (0, 1, 2):
        nscl, scl, ce = (measured[seed, arm] for arm in ARMS)
        assert all(nscl[column] > max(scl[column], ce[column]) for column in (0, 1))
        assert all(nscl[column] < min(scl[column], ce[column]) for column in (2, 3))


def test_the_pages_give_the_same_numbers_and_they_follow_from_the_seeds() -> None:
    """If two copies of a measured number differ, one is wrong. Three digits after the point are rounded."""
    page = [row for row in rows("docs/reproduction.md", "The demo") if row[0] in ARMS]
    assert rows("README.md", "Results") == page
    assert [row[0] for row in page] == [*ARMS]
    for arm, *cells in page:
        for column, cell in enumerate(cells):
            values = [each[column] for (_, name), each in of_seeds().items() if name == arm]
            average, spread = map(float, cell.split(" +- "))
            assert abs(mean(values) - average) < 0.0011
            assert abs(stdev(values) - spread) < 0.0011


def test_the_demo_file_has_no_measured_scores() -> None:
    """They would be another copy."""
    text = (tiny.REPOSITORY / "configs/demo.yaml").read_text(encoding="utf-8")
    assert not re.search(r"\+-|CKA \.\d", text)
